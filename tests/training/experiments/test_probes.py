import copy

from training.data.frame_bank import stem_features
from training.experiments.probes import LABELS, pooled_frames, probe_labels, probe_order, table


def test_a_study_is_pooled_frame_by_frame(tiny, bank):
    vision = tiny[0].vision_model
    stem = stem_features(vision, bank.pixels)
    assert pooled_frames(vision, stem[:4].unflatten(0, (2, 2))).shape == (2, 2 * 32)


def test_a_probe_tells_what_it_was_fitted_to(tiny, bank):
    pictures = copy.copy(bank)
    pictures.examples, pictures.rows = bank.examples[:6], bank.rows[:6]
    shares = probe_labels(tiny[0].vision_model, pictures, pictures, names=("modality",))
    assert shares == {"modality": 1.0}


def test_slice_order_is_asked_of_volumes_that_the_probe_has_not_seen(tiny, bank):
    volumes = copy.copy(bank)
    volumes.examples, volumes.rows = bank.examples[6:], [r - 6 for r in bank.rows[6:]]
    volumes.pixels = bank.pixels[6:]
    assert 0.0 <= probe_order(tiny[0].vision_model, volumes) <= 1.0


def test_the_table_is_in_per_cent():
    shares = dict.fromkeys(LABELS, 0.5) | {"slice order": 1.0}
    assert table({"untrained": shares}).splitlines() == [
        "| encoder | modality | plane | region | slice order |",
        "| --- | --- | --- | --- | --- |",
        "| untrained | 50.0 | 50.0 | 50.0 | 100.0 |",
    ]
