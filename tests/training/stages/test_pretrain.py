import json
from pathlib import Path

import pytest

from radfound.exceptions import CheckpointError
from training.stages import pretrain
from training.stages.common import load_parts
from training.stages.config import load_config
from training.stages.pretrain import PretrainConfig

SHIPPED = Path(pretrain.__file__).parent / "configs" / "pretrain.yaml"


def test_the_stage_writes_weights_manifest_and_picture(tiny, kit, examples, tmp_path, monkeypatch):
    model, _ = tiny
    monkeypatch.setattr(pretrain, "pictures", lambda kit, repeats: examples)
    monkeypatch.setattr(pretrain, "vision_config", lambda name: model.config.vision_config)
    short = ["loop.steps=2", "loop.batch_size=4", "loop.warmup_steps=1", "loop.validate_every=2"]
    short += ["decoder_width=32", "validation_share=0.3"]
    config = load_config(PretrainConfig, SHIPPED, [f"data={kit}", f"out={tmp_path}", *short])
    assert pretrain.pretrain(config)["val_loss"] > 0
    load_parts(tmp_path / "vision.safetensors", model)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["stage"] == "pretrain" and "vision.safetensors" in manifest["files"]
    assert (tmp_path / "picture.png").is_file()


def test_the_mixture_holds_single_pictures_several_views_and_volumes(kit):
    found = pretrain.pictures(pretrain.Kit(kit), volume_repeats=2)
    assert any(len(e.files) == 4 for e in found), "an exam of four views"
    assert any(e.files[0].suffix == ".gz" and e.region is None for e in found), "a whole volume"
    assert any(e.region for e in found), "a slice of a volume"
    assert not any(e.split in ("validation", "test") for e in found)


def test_an_unknown_model_is_refused():
    with pytest.raises(CheckpointError, match="radfound-8b"):
        pretrain.vision_config("radfound-8b")
