"""An adapter that cannot be used is refused where it is published, and where it is used all the same."""

import json
import shutil
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from radfound.engine.engine import Engine
from radfound.exceptions import AdapterError
from radfound.records.adapter_weights import check_weights
from radfound.records.adapters import AdapterStore

from ..adapter_files import MODULE, save_adapter

A, B = (f"base_model.model.{MODULE}.lora_{side}.weight" for side in "AB")
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def junk(folder):
    (folder / WEIGHTS).write_bytes(b"\xff" * 5000)


def cut(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def pickle(folder):
    torch.save({A: torch.zeros(2, 8)}, folder / WEIGHTS)


def not_a_number(folder):
    save_adapter(folder, tensors={A: np.full((2, 8), np.nan, np.float32)})


def infinite_in_bfloat16(folder):
    weights = {A: torch.zeros(2, 8), B: torch.full((8, 2), float("inf"))}
    save_file({name: each.to(torch.bfloat16) for name, each in weights.items()}, folder / WEIGHTS)


def half_of_a_pair(folder):
    save_adapter(folder, tensors={B: None})


def two_ranks(folder):
    save_adapter(folder, tensors={B: np.zeros((8, 3), np.float32)})


def nothing(folder):
    save_adapter(folder, tensors={A: None, B: None})


def no_config(folder):
    (folder / CONFIG).write_text("[")


def another_kind(folder):
    (folder / CONFIG).write_text(json.dumps({"peft_type": "IA3"}))


DAMAGES = (junk, cut, pickle, not_a_number, infinite_in_bfloat16, half_of_a_pair, two_ranks,
           nothing, no_config, another_kind)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_no_sound_adapter_is_not_published(tmp_path, damage):
    folder = save_adapter(tmp_path / "trained")
    check_weights(folder)
    damage(folder)
    store = AdapterStore(tmp_path / "adapters")
    with pytest.raises(AdapterError, match="trained"):
        store.publish(folder, {})
    assert store.list() == [] and store.active() is None


def test_a_huge_adapter_is_refused_unread(tmp_path):
    folder = save_adapter(tmp_path / "trained")
    with open(folder / WEIGHTS, "wb") as file:
        file.truncate(10 * 2**30)  # takes no room on the disk
    with pytest.raises(AdapterError, match="take 10.0 GB; expected at most 4 GB"):
        check_weights(folder)


@pytest.mark.parametrize(
    ("modules", "found"),
    [
        (("model.layers.0.self_attn.q_proj",), "shape"),
        (("model.layers.99.self_attn.q_proj",), "no such layer"),
    ],
)
def test_an_adapter_of_another_base_model_is_refused(engine, tmp_path, modules, found):
    folder = save_adapter(tmp_path / "trained", width=7, modules=modules)
    with pytest.raises(AdapterError, match=found):
        engine.backend.model.check_adapter(folder)


@pytest.fixture
def store(tmp_path):
    return AdapterStore(tmp_path / "adapters")


def fitting(engine, folder, left_out=0):
    """Save a random adapter that fits the base model."""
    linears = {
        name: module.weight.shape
        for name, module in engine.backend.model.model.language_model.named_modules()
        if name.endswith("self_attn.o_proj")
    }
    shape = next(iter(linears.values()))
    assert shape[0] == shape[1]
    return save_adapter(folder, width=shape[0], modules=tuple(linears)[left_out:])


def test_an_adapter_without_one_of_its_layers_is_refused(engine, tmp_path):
    engine.backend.model.check_adapter(fitting(engine, tmp_path / "whole"))
    with pytest.raises(AdapterError, match="1 of its layers are missing"):
        engine.backend.model.check_adapter(fitting(engine, tmp_path / "part", left_out=1))


def answer(engine, study):
    """Ask in a thread of its own, which must not be left waiting."""
    found = []
    asking = threading.Thread(
        target=lambda: found.append(engine.answer(study, "vqa", "Why?", max_new_tokens=2)),
        daemon=True,
    )
    asking.start()
    asking.join(60)
    assert found, "nobody was told"
    return found[0].model.adapter


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_bad_active_adapter_leaves_the_one_before_and_the_engine_says_so(
    study, store, tmp_path, damage, monkeypatch
):
    engine = Engine.load("radfound-tiny", adapters=store)
    good = store.publish(fitting(engine, tmp_path / "good"), {})
    bad = store.publish(fitting(engine, tmp_path / "bad"), {})
    damage(store.root / bad)
    monkeypatch.setattr(store, "path", lambda adapter: store.root / adapter)  # as if published so
    assert answer(engine, study) == good
    adapter, problem = engine.next_adapter()
    assert adapter == good and bad in problem


def test_after_a_restart_too_the_one_before_answers(study, store, tmp_path):
    engine = Engine.load("radfound-tiny", adapters=store)
    good, bad, worse = (store.publish(fitting(engine, tmp_path / "good"), {}) for _ in range(3))
    shutil.rmtree(store.root / worse)
    junk(store.root / bad)
    again = Engine.load("radfound-tiny", adapters=AdapterStore(store.root))
    assert answer(again, study) == good
    assert again.next_adapter()[0] == good and worse in again.next_adapter()[1]


def test_when_none_can_be_used_the_base_model_answers(study, store, tmp_path):
    engine = Engine.load("radfound-tiny", adapters=store)
    for _ in range(2):
        shutil.rmtree(store.root / store.publish(fitting(engine, tmp_path / "good"), {}))
    assert answer(engine, study) is None


@pytest.mark.parametrize("content", ["junk", "a folder", "not Unicode"])
def test_an_unreadable_pointer_leaves_the_adapter_in_place_and_is_told(
    study, store, tmp_path, content
):
    engine = Engine.load("radfound-tiny", adapters=store)
    good = store.publish(fitting(engine, tmp_path / "good"), {})
    assert answer(engine, study) == good
    pointer = store.root / "active.json"
    pointer.unlink()
    if content == "a folder":
        pointer.mkdir()
    else:
        pointer.write_bytes(b"junk" if content == "junk" else b"\xff")
    assert answer(engine, study) == good
    adapter, problem = engine.next_adapter()
    assert adapter == good and problem


def test_an_adapter_that_was_put_right_is_used_again(study, store, tmp_path, monkeypatch):
    engine = Engine.load("radfound-tiny", adapters=store)
    only = store.publish(fitting(engine, tmp_path / "good"), {})
    (store.root / only).rename(tmp_path / "away")
    assert answer(engine, study) is None
    (tmp_path / "away").rename(store.root / only)
    assert answer(engine, study) is None
    monkeypatch.setattr(engine._adapters, "_is_refused", lambda _: False)  # as after a minute
    assert answer(engine, study) == only
    assert engine.next_adapter() == (only, None)
