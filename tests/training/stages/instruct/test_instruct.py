import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from radfound.datasets.example import Example, Turn
from radfound.exceptions import TrainingError
from radfound.model.checkpoints import load
from radfound.model.processing_radfound import pad_frames
from radfound.study.frames import FrameConfig, make_frames
from tests.training.stages.instruct.test_grid import with_grid
from training.loop.config import Draw, LoopConfig
from training.loop.optimise import optimise
from training.stages.common import load_parts, save_parts
from training.stages.grounding import SLOTS
from training.stages.instruct import InstructConfig
from training.stages.instruct.encoded import EncodedStudies
from training.stages.instruct.examples import merge_by_image
from training.stages.instruct.grid import grid_objective
from training.stages.instruct.objective import InstructObjective
from training.stages.instruct.saving import save
from training.stages.instruct.stage import ground_projector, learning_parts

CONFIG = InstructConfig(
    out=Path("out"),
    vision=Path("vision"),
    loop=LoopConfig(30, 3e-3, batch_size=4),
    rank=4,
    ground_steps=20,
)


@pytest.fixture(autouse=True)
def few_slots(monkeypatch):
    """As many slots as the tiny model has visual tokens to spare."""
    monkeypatch.setattr("training.stages.grounding.SLOTS", SLOTS[:3])


@pytest.fixture
def objective(tiny, examples):
    torch.manual_seed(0)
    model, processor = tiny
    model.requires_grad_(False)
    studies = EncodedStudies(examples, model, views=2)
    texts = ["The lungs are clear.", "No effusion."]
    return InstructObjective(model, processor, studies, range(len(studies)), texts, CONFIG)


def test_questions_of_several_sources_about_one_image_come_together():
    one = Turn("vqa", ("Which plane?",), "axial")
    other = Turn("vqa", ("Is there a mass?",), "No")
    first = Example("case", (Path("a.png"),), (one,), {"plane": "axial"})
    again = Example("image", (Path("a.png"),), (one, other), {"region": "head", "plane": "oblique"})
    (merged,) = merge_by_image([first, again])
    assert merged.turns == (one, other)
    assert merged.labels == {"plane": "axial", "region": "head"}


def test_turns_fill_their_share_of_tokens_and_one_always_fits(objective):
    objective.config = replace(CONFIG, tokens_per_study=1)
    assert len(objective.branches(0, random.Random(0))) == 1
    objective.config = replace(CONFIG, tokens_per_study=10_000)
    assert len(objective.branches(0, random.Random(0))) == 3


def test_a_view_is_another_picture_of_the_same_study(objective):
    plain, mask = objective.studies.hidden([0, 6], 0)
    turned, _ = objective.studies.hidden([0, 6], 1)
    assert plain.shape == turned.shape and not torch.equal(plain, turned)
    assert mask.sum(1).tolist() == [1, 8]


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_learning_lowers_the_loss_of_the_answers(objective, adapter):
    config = replace(CONFIG, adapter=adapter)
    groups = learning_parts(objective.model, config)
    before = objective.evaluate(objective.studies)["loss"]
    optimise(objective.train(), groups, config.loop)
    assert objective.evaluate(objective.studies)["loss"] < before


def test_only_connector_and_adapter_learn(objective):
    groups = learning_parts(objective.model, CONFIG)
    learning = {id(p) for group in groups.values() for p in group}
    names = {n for n, p in objective.model.named_parameters() if id(p) in learning}
    assert all(n.startswith("connector.") or "lora_" in n for n in names)
    assert isinstance(objective.model.language_model, PeftModel)
    assert {id(p) for p in objective.model.parameters() if p.requires_grad} == learning


def test_a_frozen_connector_does_not_learn(objective):
    groups = learning_parts(objective.model, replace(CONFIG, connector_factor=0.0))
    assert list(groups) == [1.0]
    assert not any(p.requires_grad for p in objective.model.connector.parameters())


def test_grounding_moves_the_projector_towards_the_words(objective):
    def distance():
        visual = objective.losses(objective.studies, [0], [objective.branches(0, random.Random(0))])
        return visual["words"].item()

    before = distance()
    ground_projector(objective.model, objective.processor, objective.studies, CONFIG)
    assert distance() < before
    assert not any(p.requires_grad for p in objective.model.parameters())


def test_gradient_reaches_connector_and_adapter(objective):
    learning_parts(objective.model, CONFIG)
    objective(Draw(0, 0, CONFIG.loop))[0].backward()
    silent = [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent


@pytest.fixture
def seeing(examples):
    """An objective with grid tokens, whose questions are about one image each."""
    torch.manual_seed(0)
    model, processor = with_grid(tokens=8, grid=4), load("radfound-tiny")[1]
    processor.num_visual_tokens = 8
    model.requires_grad_(False)
    bright = Turn("vqa", ("Is there a square?",), "Yes", id="q0")
    own = [
        replace(e, turns=(replace(bright, answer=("Yes", "No")[number % 2]),))
        for number, e in enumerate(examples)
    ]
    studies = EncodedStudies(own, model, views=2)
    config = replace(CONFIG, swap=1.0, grid=1.0)
    grid = grid_objective(model, processor, studies)
    return InstructObjective(model, processor, studies, range(len(studies)), (), config, grid)


def test_an_encoded_study_has_the_tokens_that_the_model_gives_it(seeing):
    model, frames = seeing.model, make_frames(seeing.studies.examples[6].read(), FrameConfig(64, 8))
    batch = pad_frames([frames])
    with torch.no_grad():
        expected = model.get_image_features(**batch)
        found = seeing.studies.visual(model.connector, [6])
    error = (found - expected).abs().mean() / expected.abs().mean()
    assert error < 0.02  # kept in bfloat16


def test_the_swap_learns_to_tell_the_right_image_from_another(seeing):
    groups = learning_parts(seeing.model, seeing.config, seeing.grid)
    log = optimise(seeing.train(), groups, replace(seeing.config.loop, steps=40, log_every=1))
    assert {"answers", "words", "swap", "grid"} <= set(log[0])
    first, last = (sum(r["swap"] for r in part) for part in (log[:10], log[-10:]))
    assert last < first


def test_a_frozen_language_model_learns_an_answer_through_the_picture_alone(seeing, tmp_path):
    learning_parts(seeing.model, replace(CONFIG, connector_factor=0.0))
    save(seeing.model, tmp_path)
    seeing.model.language_model = seeing.model.language_model.unload()
    start = tmp_path / "adapter"
    config = replace(
        CONFIG, adapter="frozen", connector_factor=1.0, decide=1.0, words=0, start=start
    )
    seeing.config = config
    groups = learning_parts(seeing.model, config, seeing.grid)
    learning = {n for n, p in seeing.model.named_parameters() if p.requires_grad}
    assert learning and all(name.startswith("connector.") for name in learning)
    log = optimise(
        seeing.train(), groups, replace(config.loop, steps=60, learning_rate=1e-2, log_every=1)
    )
    first, last = (sum(r["decide"] for r in part) for part in (log[:10], log[-10:]))
    assert last < 0.8 * first

    again = tmp_path / "again"
    save(seeing.model, again)  # with the adapter as it was
    before, after = (
        load_file(each / "adapter_model.safetensors") for each in (start, again / "adapter")
    )
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"adapter": "dora"}, "expected one of"), ({"adapter": "frozen"}, "start=")],
)
def test_settings_of_the_language_model_are_checked(changes, said):
    with pytest.raises(TrainingError, match=said):
        replace(CONFIG, **changes)


def test_only_yes_and_no_about_one_image_are_decided(objective, seeing):
    for one, is_zero in ((objective, True), (seeing, False)):
        one.config = replace(CONFIG, decide=1.0)
        chosen = [one.branches(n, random.Random(0)) for n in (0, 1)]
        assert (one.losses(one.studies, [0, 1], chosen)["decide"].item() == 0.0) is is_zero


def test_labels_that_other_images_share_are_not_swapped(objective):
    objective.config = replace(CONFIG, swap=1.0)
    chooser = random.Random(0)
    chosen = [objective.branches(n, chooser) for n in (0, 1)]
    parts = objective.losses(objective.studies, [0, 1], chosen, 0, chooser)
    assert parts["swap"].item() == 0.0


def test_a_run_goes_on_from_an_earlier_adapter(objective, tmp_path):
    learning_parts(objective.model, CONFIG)
    with torch.no_grad():
        for name, weight in objective.model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.01)
    save(objective.model, tmp_path)
    again, _, _, _ = load("radfound-tiny")
    learning_parts(again, replace(CONFIG, start=tmp_path / "adapter"))
    kept = [p for n, p in again.named_parameters() if "lora_B" in n]
    assert kept and all(p.requires_grad and p.eq(p[0, 0]).all() and p[0, 0] > 0 for p in kept)


def test_what_ships_is_bfloat16_and_names_no_folder(objective, tmp_path):
    learning_parts(objective.model, CONFIG)
    names = save(objective.model, tmp_path)
    assert all((tmp_path / name).is_file() for name in names)
    state = load_file(tmp_path / "model.safetensors")
    assert {t.dtype for t in state.values()} == {torch.bfloat16}
    assert {name.split(".")[0] for name in state} == {"vision_model", "connector"}
    settings = (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert str(Path.home()) not in settings and "/tmp" not in settings


# Handing weights from stage to stage


def test_saved_parts_come_back(tiny, tmp_path):
    model, _ = tiny
    save_parts(tmp_path / "v.safetensors", {"vision_model": model.vision_model})
    wanted = model.vision_model.norm.weight.detach().clone()
    torch.nn.init.zeros_(model.vision_model.norm.weight)
    load_parts(tmp_path / "v.safetensors", model)
    assert torch.equal(model.vision_model.norm.weight, wanted)


def test_missing_weights_say_which_stage_to_run(tiny, tmp_path):
    with pytest.raises(TrainingError, match="run the stage before this one"):
        load_parts(tmp_path / "vision.safetensors", tiny[0])


def test_weights_of_another_size_are_refused(tiny, tmp_path):
    model, _ = tiny
    save_parts(tmp_path / "v.safetensors", {"vision_model": model.vision_model.layers})
    with pytest.raises(TrainingError, match="does not fit this model"):
        load_parts(tmp_path / "v.safetensors", model)
