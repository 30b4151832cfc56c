import json
import shutil

import pytest
import torch

from radfound.engine.transformers.backend import TransformersBackend
from radfound.engine.transformers.loading import load, revision_of
from radfound.exceptions import CheckpointError, DeviceError, RequestError


@pytest.fixture
def copy(folders, tmp_path):
    return shutil.copytree(folders("llava"), tmp_path / "copied")


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_with_weights_in_a_pickle_is_refused(copy):
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickle .pytorch_model.bin."):
        load(copy)


def test_a_folder_without_weights_is_refused(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights; expected"):
        load(copy)


def test_a_model_that_needs_custom_code_is_refused_and_its_code_is_not_run(copy):
    (copy / "modeling_own.py").write_text("raise SystemExit('ran')")
    edit_config(
        copy,
        model_type="hulumed_qwen2",
        auto_map={
            "AutoModelForImageTextToText": "modeling_own.Own",
            "AutoConfig": "modeling_own.C",
        },
    )
    with pytest.raises(CheckpointError, match="custom code, which is never run"):
        load(copy)


def test_custom_code_beside_a_model_that_transformers_knows_is_not_run(copy):
    (copy / "modeling_own.py").write_text("raise SystemExit('ran')")
    edit_config(copy, auto_map={"AutoModelForImageTextToText": "modeling_own.Own"})
    load(copy, device="cpu")


def test_a_text_model_is_refused(copy):
    edit_config(copy, model_type="llama")
    with pytest.raises(CheckpointError, match="found a model of type 'llama'; expected a vision"):
        load(copy)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no readable config.json"):
        load(tmp_path / "nothing")


def test_truncated_weights_are_refused(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(copy)


def test_a_model_without_chat_template_is_refused(copy):
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match="chat template"):
        load(copy)


def test_the_revision_follows_the_weights_and_not_the_folder(folders, copy):
    assert revision_of(copy) == revision_of(folders("llava"))
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\x01\x02\x03\x04")
    assert revision_of(copy) != revision_of(folders("llava"))


def test_wrong_settings_are_refused(folders):
    with pytest.raises(RequestError, match="dtype: found 'int8'"):
        load(folders("llava"), dtype="int8")
    with pytest.raises(RequestError, match="bits: found 3; expected 4 or 8"):
        load(folders("llava"), bits=3, device="cpu")
    with pytest.raises(DeviceError):
        load(folders("llava"), device="cuda:99")


def test_four_bits_need_an_extra(folders):
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        with pytest.raises(RequestError, match="bitsandbytes: not installed; run `pip install"):
            load(folders("llava"), bits=4, device="cpu")


def test_bfloat16_is_the_default(folders):
    assert load(folders("llava"), device="cpu").model.dtype == torch.bfloat16


def test_name_and_recipe_follow_the_folder_unless_named(folders):
    backend = TransformersBackend.load(folders("llava"), device="cpu")
    assert (backend.describe().name, backend.describe().recipe) == ("llava", "single_picture")
    backend.close()
    backend = TransformersBackend.load(folders("llava"), name="ours", recipe="plain", device="cpu")
    assert (backend.describe().name, backend.describe().recipe) == ("ours", "plain")
    backend.close()
