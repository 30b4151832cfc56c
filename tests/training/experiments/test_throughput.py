import pytest

from training.experiments.throughput import Shape, compare, main, our_loss, reference_loss
from training.stages.objectives import PretrainWeights

SMALL = Shape(64, 16, 64, 1, 64, 1, 0.5, 1)


def test_both_encoders_and_decoders_are_of_the_same_size():
    ours, _ = our_loss(SMALL, 8, PretrainWeights())
    theirs, _ = reference_loss(SMALL)

    def size(modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    assert size(ours.vision.layers) == pytest.approx(size(theirs.vit.layers), rel=1e-3)
    assert size(ours.decoder.layers) == pytest.approx(size(theirs.decoder.decoder_layers), rel=1e-3)


def test_the_comparison_measures_all_three():
    found = compare(SMALL, batch=8, rounds=2)
    assert min(found.alone, found.with_context, found.reference, found.ratio) > 0


def test_the_command_prints_the_ratio(capsys):
    main(["--batch", "8", "--rounds", "1", "--width", "64", "--layers", "1", "--device", "cpu"])
    assert "ratio without context to ViTMAE" in capsys.readouterr().out
