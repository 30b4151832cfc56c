"""The stages one after the other, from the command line, on one's own studies and a random model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from radfound.engine.local.model import LocalModel
from radfound.exceptions import DatasetError, TrainingError
from radfound.model import sizes
from radfound.model.checkpoints import load
from radfound.question import Question
from training.data.shards import write_shards
from training.loop.config import LoopConfig
from training.stages import align, instruct, merge, pretrain
from training.stages.common import StageConfig, stage_examples, stage_model
from training.stages.config import run_stage

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "training" / "stages" / "configs"
PARALLEL = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SHORT = [
    "model=radfound-tiny", "loop.steps=3", "loop.batch_size=4", "loop.warmup_steps=1", "loop.log_every=1",
    "loop.validate_every=3", "loop.precision=fp32",
]  # fmt: skip
STAGES = {
    "pretrain": (pretrain.PretrainConfig, pretrain.pretrain, ["validation_share=0.3"]),
    "align": (align.AlignConfig, align.align, ["weights.contrast=0"]),
    "instruct": (
        instruct.InstructConfig,
        instruct.instruct,
        ["ground_steps=0", "words=0", "wording=0"],
    ),
}


@pytest.fixture(scope="module")
def own(examples, tmp_path_factory):
    """The examples as somebody's own JSONL file, the last two pictures to validate on."""
    path = tmp_path_factory.mktemp("own") / "studies.jsonl"
    rows = [
        {
            "patient": example.key,
            "images": [str(example.files[0])],
            "split": "validation" if number in (4, 5) else "train",
            "caption": "A square in a grey field.",
            "questions": [{"question": "Is it normal?", "answer": "No", "kind": "closed"}],
            **example.labels,
        }
        for number, example in enumerate(examples)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def settings(name, own, out, *more):
    return [
        "--config", str(CONFIGS / f"{name}.yaml"), "--out", str(out), *SHORT, *STAGES[name][2],
        f"sources=['{own}']", f"validation=['{own}']", *more,
    ]  # fmt: skip


def run(name, own, out, *more):
    run_stage(name, *STAGES[name][:2], arguments=settings(name, own, out, *more))
    return json.loads((out / "manifest.json").read_text())


@pytest.fixture(scope="module")
def trained(own, tmp_path_factory):
    """The folders of the three stages."""
    root = tmp_path_factory.mktemp("trained")
    run("pretrain", own, root / "pretrain")
    run("align", own, root / "align", f"vision={root / 'pretrain' / 'vision.safetensors'}")
    run("instruct", own, root / "instruct", f"vision={root / 'align' / 'vision.safetensors'}")
    return root


def test_each_stage_says_what_it_wrote_and_how_good_it_was(trained):
    for name in STAGES:
        manifest = json.loads((trained / name / "manifest.json").read_text())
        assert manifest["stage"] == name and manifest["metrics"]["val_loss"] > 0
        assert all((trained / name / file).is_file() for file in manifest["files"])


def test_each_stage_hands_its_weights_to_the_next(trained):
    found = [
        load_file(trained / name / file)
        for name, file in (("align", "vision.safetensors"), ("instruct", "model.safetensors"))
    ]
    shared = [n for n in found[0] if n.startswith("vision_model.")]
    assert shared and all(torch.equal(found[0][n], found[1][n]) for n in shared)


def test_what_was_trained_becomes_a_folder_that_answers(trained, examples):
    folder = trained / "merged"
    merge.main(
        ["--trained", str(trained / "instruct"), "--out", str(folder), "--model", "radfound-tiny"]
    )
    local = LocalModel.load(str(folder))
    tokens = list(
        local.stream(local.encode(examples[0].read()), Question("vqa", "Is it normal?"), 4)
    )
    assert tokens
    adapter = load_file(trained / "instruct" / "adapter" / "adapter_model.safetensors")
    assert any("lora_A" in name for name in adapter)
    base, _, _, _ = load("radfound-tiny")
    merged, _, _, _ = load(folder)
    name = "layers.1.self_attn.q_proj.weight"
    ours, theirs = (dict(m.language_model.model.named_parameters())[name] for m in (merged, base))
    assert not torch.equal(ours.float(), theirs.float())


@pytest.mark.parametrize("name", ["align", "instruct"])
def test_two_processes_write_what_one_process_learns(name, own, trained, tmp_path):
    before = {"align": "pretrain", "instruct": "align"}[name]
    vision = f"vision={trained / before / 'vision.safetensors'}"
    whole = tmp_path / "whole"
    run(name, own, whole, vision, "loop.accumulate=2")
    arguments = settings(name, own, tmp_path / "two", vision)
    subprocess.run(
        [sys.executable, *PARALLEL, "-m", f"training.stages.{name}", *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    losses = [
        [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]
        for out in (whole, tmp_path / "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)
    manifests = [
        json.loads((out / "manifest.json").read_text()) for out in (whole, tmp_path / "two")
    ]
    assert manifests[0]["files"].keys() == manifests[1]["files"].keys()


def test_shards_are_a_source_like_any_other(examples, tmp_path):
    write_shards(examples, tmp_path / "shards")
    config = StageConfig(
        out=tmp_path / "out", loop=LoopConfig(1, 1e-3), sources=(f"shards:{tmp_path / 'shards'}",)
    )
    found = stage_examples(config, lambda kit: [])
    assert [e.turns for e in found] == [e.turns for e in examples]
    assert found[0].read().images[0].voxels.shape == examples[0].read().images[0].voxels.shape


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("somewhere", TrainingError, "expected LAYOUT:FOLDER"),
        ("slack:/data", DatasetError, "no such layout"),
        ("shards:/nowhere", DatasetError, "0 shards found"),
    ],
)
def test_a_source_that_is_none_says_what_would_be_one(source, error, words, tmp_path):
    config = StageConfig(out=tmp_path, loop=LoopConfig(1, 1e-3), sources=(source,))
    with pytest.raises(error, match=words):
        stage_examples(config, lambda kit: [])


def test_no_data_at_all_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="no examples to learn from"):
        stage_examples(StageConfig(out=tmp_path, loop=LoopConfig(1, 1e-3)), lambda kit: [])


def test_a_size_asks_for_its_language_model():
    with pytest.raises(TrainingError, match="language_model="):
        stage_model("radfound-7b")


def test_a_size_takes_any_causal_language_model(tmp_path, monkeypatch):
    """The tiny model's language model and tokenizer, in a folder, stand for one from the hub."""
    tiny, processor, _, _ = load("radfound-tiny")
    tiny.language_model.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    small = dict(
        image_size=64, patch_size=16, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_context_layers=1, num_attention_heads=2,
    )  # fmt: skip
    size = {"vision": small, "num_visual_tokens": 4, "num_connector_layers": 1}
    monkeypatch.setitem(sizes._SIZES, "radfound-base", size)
    model, made = stage_model("radfound-base", str(tmp_path))
    assert model.config.image_token_id == made.tokenizer.convert_tokens_to_ids("<image>")
    assert model.config.text_config.hidden_size == tiny.config.text_config.hidden_size
