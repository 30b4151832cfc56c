import json
import logging
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import pytest

from radfound.exceptions import AdapterError, NotFoundError, RequestError, StorageError
from radfound.records.adapters import AdapterStore, store_path

from ..adapter_files import save_adapter

ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path) -> AdapterStore:
    return AdapterStore(store_path(tmp_path))


@pytest.fixture
def trained(tmp_path) -> Path:
    """A folder as peft saves an adapter."""
    return save_adapter(tmp_path / "trained", width=5000)


def strays(store: AdapterStore) -> list[str]:
    known = {"active.json", ".lock", *(info.id for info in store.list())}
    return [entry.name for entry in store.root.iterdir() if entry.name not in known]


def start(script: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


# Pruning


def test_pruning_keeps_the_newest_the_active_one_its_parent_and_the_way_back(store, trained):
    for parent in (None, "a-0001", "a-0002", "a-0003", "a-0004", "a-0005"):
        store.publish(trained, {"parent": parent})
    store.activate("a-0001")
    store.activate("a-0003")
    assert store.prune(1) == ["a-0004", "a-0005"]
    assert [info.id for info in store.list()] == ["a-0001", "a-0002", "a-0003", "a-0006"]
    assert all(store.path(info.id) for info in store.list())
    assert [store.rollback(), store.rollback(), store.rollback()] == ["a-0001", "a-0006", "a-0003"]
    assert store.prune(1) == ["a-0001"]
    assert AdapterStore(store.root).publish(trained, {}) == "a-0007"


def test_a_pruned_adapter_can_be_traced_but_not_activated(store, trained):
    for note in ("first", "second", "third"):
        store.publish(trained, {"note": note})
    store.prune(1)
    assert store.manifest("a-0001")["note"] == "first"
    assert not (store.root / "a-0001" / "adapter_model.safetensors").exists()
    with pytest.raises(NotFoundError, match="a-0001: its weights were pruned"):
        store.activate("a-0001")


def test_pruning_that_was_killed_is_finished_by_the_next(store, trained):
    for _ in range(4):
        store.publish(trained, {})
    (store.root / "a-0001" / "pruned").write_text("")
    store.prune(4)
    assert not (store.root / "a-0001" / "adapter_model.safetensors").exists()


def test_pruning_everything_is_refused(store, trained):
    store.publish(trained, {})
    with pytest.raises(RequestError, match="keep: found 0"):
        store.prune(0)
    assert store.list()


# Publishing


def test_published_adapter_is_whole_active_and_remembered(store, trained):
    adapter = store.publish(trained, {"base": "0123456789ab", "metrics": {"kept": 1.0}})
    assert adapter == store.active() == "a-0001"
    folder = store.path(adapter)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (folder / name).read_bytes() == (trained / name).read_bytes()
    [info] = store.list()
    assert (info.id, info.active) == ("a-0001", True)
    assert info.manifest["base"] == "0123456789ab"
    assert info.manifest["metrics"] == {"kept": 1.0}
    assert (
        info.manifest
        == store.manifest(adapter)
        == json.loads((folder / "manifest.json").read_text())
    )
    assert strays(store) == []


def test_adapter_can_be_published_without_being_activated(store, trained):
    store.publish(trained, {})
    assert store.publish(trained, {}, activate=False) == "a-0002"
    assert store.active() == "a-0001"
    assert [(info.id, info.active) for info in store.list()] == [
        ("a-0001", True),
        ("a-0002", False),
    ]


def test_later_changes_of_the_source_do_not_reach_the_published_one(store, trained):
    published = (trained / "adapter_model.safetensors").read_bytes()
    adapter = store.publish(trained, {})
    (trained / "adapter_model.safetensors").write_bytes(b"changed")
    assert (store.path(adapter) / "adapter_model.safetensors").read_bytes() == published


def test_published_folder_can_be_published_again(store, trained):
    first = store.path(store.publish(trained, {"note": "first"}))
    second = store.publish(first, {"note": "second"})
    assert [info.manifest["note"] for info in store.list()] == ["first", "second"]
    assert store.path(second) != first


def test_id_of_a_deleted_adapter_is_not_given_again(store, trained):
    store.publish(trained, {})
    shutil.rmtree(store.path(store.publish(trained, {}, activate=False)))
    assert AdapterStore(store.root).publish(trained, {}) == "a-0003"


def test_adapters_after_the_ten_thousandth_stay_in_order(store, trained):
    store.publish(trained, {})
    pointer = json.loads((store.root / "active.json").read_text())
    (store.root / "active.json").write_text(json.dumps({**pointer, "newest": 9998}))
    assert [store.publish(trained, {}) for _ in range(2)] == ["a-9999", "a-10000"]
    assert [info.id for info in store.list()] == ["a-0001", "a-9999", "a-10000"]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_incomplete_adapter_is_not_published(store, trained, name, damage):
    (trained / name).unlink()
    if damage == "empty":
        (trained / name).touch()
    with pytest.raises(AdapterError, match=name):
        store.publish(trained, {})
    assert (store.list(), store.active()) == ([], None)


def test_link_in_an_adapter_is_not_followed(store, trained):
    (trained / "secret").symlink_to("/etc/passwd")
    with pytest.raises(AdapterError, match="secret"):
        store.publish(trained, {})


@pytest.mark.parametrize("manifest", [{"loss": float("nan")}, {"path": Path(".")}, {"id": "a-7"}])
def test_manifest_that_cannot_be_kept_publishes_nothing(store, trained, manifest):
    with pytest.raises(AdapterError, match="^manifest: "):
        store.publish(trained, manifest)
    assert store.list() == []
    assert not store.root.exists() or strays(store) == []


def test_failed_publication_leaves_the_former_adapter_active(store, trained, monkeypatch):
    store.publish(trained, {})

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("radfound.records.durable.shutil.copyfileobj", fail)
    with pytest.raises(StorageError, match="No space left"):
        store.publish(trained, {})
    assert store.active() == "a-0001"
    assert strays(store) == []


# Activating and going back


def test_store_without_adapters_answers_with_the_base_model_and_makes_nothing(store, tmp_path):
    assert (store.active(), store.list()) == (None, [])
    assert list(tmp_path.iterdir()) == []


def test_activation_reaches_another_store_on_the_same_folder(store, trained):
    server = AdapterStore(store.root)
    seen = []
    for _ in range(20):  # faster than the file system's clock ticks
        store.publish(trained, {})
        seen.append(server.active())
        store.activate(None)
        seen.append(server.active())
    expected = [each for number in range(1, 21) for each in (f"a-{number:04d}", None)]
    assert seen == expected


def test_rollback_goes_back_step_by_step_across_restarts(store, trained):
    for _ in range(3):
        store.publish(trained, {})
    went = [AdapterStore(store.root).rollback() for _ in range(3)]
    assert went == ["a-0002", "a-0001", None]
    assert AdapterStore(store.root).active() is None
    with pytest.raises(RequestError, match="nothing was active before"):
        AdapterStore(store.root).rollback()


def test_rollback_undoes_an_activation_of_the_base_model(store, trained):
    store.publish(trained, {})
    store.activate(None)
    assert store.active() is None
    assert store.rollback() == store.active() == "a-0001"


def test_activating_what_is_active_changes_nothing(store, trained):
    store.publish(trained, {})
    store.activate("a-0001")
    assert store.rollback() is None


@pytest.mark.parametrize("adapter", ["a-0009", "base", "", "..", "../adapters/a-0001", "a-1", None])
def test_unknown_adapter_is_not_found(store, trained, adapter):
    store.publish(trained, {})
    with pytest.raises(NotFoundError):
        store.path(adapter)
    if adapter is not None:
        with pytest.raises(NotFoundError):
            store.activate(adapter)
    assert store.active() == "a-0001"


def test_readers_see_one_adapter_or_the_other_while_it_is_switched(store, trained):
    store.publish(trained, {})
    store.publish(trained, {})
    stop, seen, failures = threading.Event(), set(), []

    def read():
        try:
            while not stop.is_set():
                seen.add(AdapterStore(store.root).active())
        except Exception as failure:
            failures.append(failure)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(100):
            store.activate(f"a-000{1 + number % 2}")
    finally:
        stop.set()
        reader.join()
    assert failures == []
    assert seen <= {"a-0001", "a-0002"}


# Damage


def test_tampered_weights_are_refused_and_the_active_adapter_stays(store, trained):
    store.publish(trained, {})
    store.publish(trained, {})
    store.activate("a-0001")
    weights = store.root / "a-0002" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[20_000] ^= 1
    weights.write_bytes(content)
    for action in (lambda: store.path("a-0002"), lambda: store.activate("a-0002"), store.rollback):
        with pytest.raises(AdapterError, match=r"a-0002/adapter_model\.safetensors: its SHA-256"):
            action()
    assert store.active() == "a-0001"


def test_missing_file_of_an_adapter_is_named(store, trained):
    store.publish(trained, {})
    (store.root / "a-0001" / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match=r"a-0001/adapter_config\.json"):
        store.path("a-0001")


def test_manifest_cannot_point_outside_its_folder_or_leave_the_weights_out(store, trained):
    store.publish(trained, {})
    path = store.root / "a-0001" / "manifest.json"
    manifest = json.loads(path.read_text())
    for files in ({**manifest["files"], "../a-0002/x": "0"}, {"adapter_config.json": "0"}, {}):
        path.write_text(json.dumps({**manifest, "files": files}))
        with pytest.raises(AdapterError, match="manifest"):
            store.path("a-0001")


def test_folder_without_a_manifest_is_ignored_and_its_number_not_used(store, trained, caplog):
    store.publish(trained, {})
    shutil.copytree(trained, store.root / "a-0002")
    with caplog.at_level(logging.WARNING):
        assert [info.id for info in store.list()] == ["a-0001"]
    assert "a-0002" in caplog.text
    assert store.publish(trained, {}) == "a-0003"


def test_what_a_killed_publication_left_is_removed_at_the_next_start(store, trained):
    store.publish(trained, {})
    shutil.copytree(trained, store.root / ".tmp-half")
    (store.root / ".tmp-pointer").write_text("{")
    assert [info.id for info in AdapterStore(store.root).list()] == ["a-0001"]
    assert strays(store) == []


def test_publication_under_way_is_not_removed_by_a_start_beside_it(store, trained):
    store.publish(trained, {})
    staging = store.root / ".tmp-under-way"
    staging.mkdir()
    with filelock.FileLock(store.root / ".lock"):
        AdapterStore(store.root)
        assert staging.exists()


def test_work_in_progress_goes_at_the_next_start_but_not_while_its_process_lives(store, trained):
    worker = start(HOLD_A_SCRATCH_FOLDER, store.root)
    assert worker.stdout.readline() == "ready\n"
    try:
        AdapterStore(store.root).publish(trained, {})
        assert len(strays(store)) == 1
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.communicate(timeout=60)
    assert strays(AdapterStore(store.root)) == []


HOLD_A_SCRATCH_FOLDER = """
import sys, time
from radfound.records.adapters import AdapterStore
with AdapterStore(sys.argv[1]).scratch() as folder:
    (folder / "half").write_text("a weight")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_scratch_folder_goes_with_the_end_of_its_work(store, trained):
    with store.scratch() as folder:
        for file in trained.iterdir():
            shutil.copy(file, folder)
        adapter = store.publish(folder, {})
    assert strays(store) == []
    names = {file.name for file in store.path(adapter).iterdir()}
    assert names == {"manifest.json", *(file.name for file in trained.iterdir())}


# Refusals


def test_refusals_are_kept_the_newest_fifty_oldest_first(store):
    assert store.refusals() == []
    for number in range(52):
        store.note_refusal({"reason": str(number), "gate": {"passed": False}})
    kept = AdapterStore(store.root).refusals()
    assert [each["reason"] for each in kept] == [str(number) for number in range(2, 52)]
    assert all(each["created"] and each["gate"] == {"passed": False} for each in kept)
    assert store.list() == [] and store.active() is None


@pytest.mark.parametrize("content", [b"[{", b"\xff\xfe", b'{"reason": "x"}', b"null"])
def test_damaged_list_of_refusals_costs_only_the_refusals(store, trained, content):
    adapter = store.publish(trained, {})
    (store.root / "refused.json").write_bytes(content)
    assert store.refusals() == []
    store.note_refusal({"reason": "new"})
    assert [each["reason"] for each in store.refusals()] == ["new"]
    assert store.active() == adapter


def test_damaged_pointer_is_named_and_an_activation_heals_it(store, trained):
    store.publish(trained, {})
    (store.root / "active.json").write_text('{"schema": "radfound.adapters/1", "active": "../x"')
    for action in (store.active, store.rollback):
        with pytest.raises(AdapterError, match=r"active\.json: damaged"):
            action()
    store.activate("a-0001")
    assert AdapterStore(store.root).active() == "a-0001"


def test_folder_that_cannot_be_written_is_named(unwritable_folder):
    store = AdapterStore(unwritable_folder / "adapters")
    with pytest.raises(StorageError, match="adapters: .*can be written"):
        store.activate(None)


def test_file_in_the_stores_place_is_named(tmp_path, trained):
    (tmp_path / "adapters").write_text("in the way")
    with pytest.raises(StorageError, match="adapters"):
        AdapterStore(tmp_path / "adapters").publish(trained, {})


# Several processes


PUBLISH_FIVE = """
import sys
from radfound.records.adapters import AdapterStore
store = AdapterStore(sys.argv[1])
for _ in range(5):
    print(store.publish(sys.argv[2], {}), flush=True)
"""


def test_two_processes_publish_under_different_ids(store, trained):
    writers = [start(PUBLISH_FIVE, store.root, trained) for _ in range(2)]
    ids = [line for writer in writers for line in writer.communicate(timeout=60)[0].split()]
    assert sorted(ids) == [f"a-{number:04d}" for number in range(1, 11)]
    assert [info.id for info in store.list()] == sorted(ids)


PUBLISH_FOR_EVER = """
import sys
from radfound.records.adapters import AdapterStore
store = AdapterStore(sys.argv[1])
print("ready", flush=True)
while True:
    print(store.publish(sys.argv[2], {}), flush=True)
    store.activate(None)
    store.rollback()
"""


def test_store_is_whole_after_every_kill(store, trained):
    moments = random.Random(0)
    acknowledged = []
    for _ in range(8):
        writer = start(PUBLISH_FOR_EVER, store.root, trained)
        assert writer.stdout.readline() == "ready\n"
        time.sleep(moments.uniform(0, 0.15))
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.communicate(timeout=60)[0].split("\n")[:-1]

        survivor = AdapterStore(store.root)
        published = [info.id for info in survivor.list()]
        assert set(acknowledged) <= set(published)
        assert all(survivor.path(adapter).is_dir() for adapter in published)
        assert survivor.active() in (None, *published)
        assert strays(survivor) == []
    assert acknowledged
