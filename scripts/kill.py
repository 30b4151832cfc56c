"""Kill the server and trainings at random times, and check for lost, partial and temporary files.

Run through `make bench-kill`. Clients write to every route the whole time. After every kill the server is
started and its state compared. Prints a Markdown table; returns 1 if an acknowledged write is lost, an
adapter is incomplete, the server does not start or answers with a 5xx, or a temporary file is left.

Server and trainings are forked from this process, which has imported everything, so that kills hit work
and not imports.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import requests
from load import correction
from serve import put_samples
from writers import Writers, put_volumes

from monailabel_app.lib.trainers import TrainingState
from radfound.exceptions import RadFoundError
from radfound.records.adapters import AdapterStore, store_path
from radfound.records.corrections import CorrectionLog, log_path
from radfound.records.durable import TEMPORARY_PREFIX
from radfound.wire import correction_from_json
from training.corrections.phases import CHECKING

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = "radfound-tiny"
START_S, TIMEOUT_S, STOP_S = 300, 120, 60
FIRST_CORRECTIONS = 4
STUDIES = 1500
_IMPORTED = (
    *("monailabel.main", "monailabel.endpoints.train", "monailabel_app.lib.answering.service"),
    *("radfound.engine.engine", "training.corrections.finetune"),
)
_FORK = multiprocessing.get_context("fork")


@dataclass
class Counts:
    """Counts of one phase; `caught` counts the kills before the work was done."""

    kills: int = 0
    caught: int = 0
    acknowledged: int = 0
    failed: int = 0
    lost: int = 0
    adapters: int = 0
    broken: int = 0
    starts: int = 0
    strays: int = 0


class Place:
    """A folder of studies, with its server, trainings and clients."""

    def __init__(self, folder: Path, chance: random.Random, writers: Writers):
        self.folder, self.studies, self.chance = folder, folder / "studies", chance
        self.writers = writers
        self.training_s = self.publishing_s = 1.0  # measured duration of a training, and of its end
        self._adapters: set[str] = set()

    def write(self, process: BaseProcess, url: str, work: Callable[[], None]) -> None:
        """Let clients write to every route during `work` and until the server has been killed."""
        with self.writers.running(url):
            try:
                work()
            finally:
                _kill(process)

    @contextmanager
    def server(self) -> Iterator[tuple[BaseProcess, str]]:
        """Start the server; kill it at the end of the block, if it still runs."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = _FORK.Process(target=_serve, args=(self.folder, port))
        process.start()
        try:
            url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_S
            while not _is_up(url):
                if not process.is_alive() or time.monotonic() > deadline:
                    raise SystemExit((self.folder / "server.log").read_text()[-3000:])
                time.sleep(0.1)
            yield process, url
        finally:
            _kill(process)

    @contextmanager
    def training(self) -> Iterator[tuple[BaseProcess, threading.Event]]:
        """Start a training; the event is set when only evaluation and publishing are left."""
        state = TrainingState(log_path(self.studies).with_name("training.json"))
        state.path.unlink(missing_ok=True)
        process = _FORK.Process(target=_train, args=(self.folder,))
        process.start()
        is_examining = threading.Event()

        def watch() -> None:
            while process.is_alive():
                found = state.read()
                if found.phase == CHECKING or found.state not in ("idle", "running"):
                    break
                time.sleep(0.01)
            is_examining.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield process, is_examining
        finally:
            _kill(process)
            watcher.join()

    def is_new(self) -> bool:
        """Whether adapters have changed since the last call."""
        known = self._adapters
        self._adapters = {info.id for info in AdapterStore(store_path(self.studies)).list()}
        return self._adapters != known

    def measure(self) -> None:
        """Measure how long a whole training takes."""
        self.is_new()
        began = time.monotonic()
        with self.training() as (process, is_examining):
            is_examining.wait(START_S)
            examined = time.monotonic()
            while not self.is_new():
                if not process.is_alive():
                    raise SystemExit((self.folder / "training.log").read_text()[-3000:])
                time.sleep(0.01)
            self.training_s = time.monotonic() - began
            self.publishing_s = time.monotonic() - examined

    def look(self, url: str, counts: Counts) -> None:
        """Count lost writes, broken adapters and temporary files of a server that has just started."""
        counts.starts += 1
        for lost in self.writers.lost(url):
            counts.lost += 1
            print("lost:", lost, file=sys.stderr)
        counts.lost += not CorrectionLog(log_path(self.studies)).verify().is_whole
        store = AdapterStore(store_path(self.studies))
        for info in store.list():
            counts.adapters += 1
            counts.broken += not _is_whole(store, info.id)
        active = requests.get(f"{url}/radfound/health", timeout=TIMEOUT_S).json()["model"]
        response = requests.post(
            f"{url}/infer/radfound_vqa?image=sample_mr_slice&output=json",
            data={"params": json.dumps({"question": "What is shown?", "max_new_tokens": 2})},
            timeout=TIMEOUT_S,
        )
        answered_by = response.json()["model"]["adapter"] if response.ok else response.text
        counts.broken += answered_by != active["adapter"]
        strays = _strays(self.folder)
        counts.strays += len(strays)
        for stray in strays:
            print("left behind:", stray.relative_to(self.folder), file=sys.stderr)


def _write(place: Place, process: BaseProcess, url: str, counts: Counts) -> None:
    """Kill the server while clients write, with no other work."""
    process.join(place.chance.uniform(0.05, 5.0))
    counts.caught += 1


def _activate(place: Place, process: BaseProcess, url: str, counts: Counts) -> None:
    """Kill the server while adapters are activated in turn."""
    threading.Timer(place.chance.uniform(0.05, 5.0), process.kill).start()
    choices = ["base", *(info.id for info in AdapterStore(store_path(place.studies)).list())]
    try:
        while process.is_alive():
            adapter = place.chance.choice(choices)
            requests.post(f"{url}/radfound/adapters/{adapter}/activate", timeout=TIMEOUT_S)
    except requests.RequestException:
        counts.caught += 1


def _train_a_while(place: Place, process: BaseProcess, url: str, counts: Counts) -> None:
    """Kill a training at any time, then the server."""
    with place.training() as (training, _):
        training.join(place.chance.uniform(0, place.training_s))
    counts.caught += not place.is_new()


def _publish(place: Place, process: BaseProcess, url: str, counts: Counts) -> None:
    """Kill a training during evaluation or publishing, then the server."""
    with place.training() as (training, is_examining):
        is_examining.wait(TIMEOUT_S)
        training.join(place.chance.uniform(0, place.publishing_s))
    counts.caught += not place.is_new()


PHASES = {
    "writing": _write,
    "training": _train_a_while,
    "publishing": _publish,
    "activating": _activate,
}


def main() -> int:
    """Kill as often as requested, with the phases in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--studies", type=int, default=STUDIES)
    args = parser.parse_args()
    import_everything()
    found = {phase: Counts() for phase in PHASES}
    with tempfile.TemporaryDirectory() as name:
        place = _new_place(Path(name), random.Random(args.seed), args.studies)
        before: Counts | None = None
        for number in range(args.kills + 1):
            with place.server() as (process, url):
                if before is not None:
                    place.look(url, before)
                    print(f"kill {number} of {args.kills}: {before}", file=sys.stderr, flush=True)
                if number < args.kills:
                    phase = list(PHASES)[number % len(PHASES)]
                    before = found[phase]
                    before.kills += 1
                    work = partial(PHASES[phase], place, process, url, before)
                    acknowledged, failed = place.writers.count, place.writers.failed
                    place.write(process, url, work)
                    before.acknowledged += place.writers.count - acknowledged
                    before.failed += place.writers.failed - failed
    _show(found)
    bad = any(each.failed or each.lost or each.broken or each.strays for each in found.values())
    return 1 if bad else 0


def _new_place(folder: Path, chance: random.Random, count: int) -> Place:
    """Prepare a folder with studies, some corrections and a first adapter."""
    for part in ("home", "tmp", "studies", "cwd"):
        (folder / part).mkdir()
    put_samples(folder / "studies")
    place = Place(folder, chance, Writers(put_volumes(folder / "studies", count)))
    log = CorrectionLog(log_path(place.studies))
    for number in range(FIRST_CORRECTIONS):
        body = correction(f"first-{number}", "sample_ct_slice")
        log.append(correction_from_json(body))
    for _ in range(2):  # the second training finds the studies encoded
        place.measure()
    return place


def import_everything() -> None:
    """Import the modules of server and trainings before the fork."""
    for name in _IMPORTED:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)  # threads do not survive a fork


def _serve(folder: Path, port: int) -> None:
    """Run the server in this process."""
    _settle(folder, "server.log")
    from monailabel.config import settings
    from monailabel.main import Main

    settings.MONAI_LABEL_SESSION_PATH = str(folder / "sessions")
    sys.argv = [
        *("monailabel", "start_server", "--app", str(ROOT / "monailabel_app")),
        *("--studies", str(folder / "studies"), "--host", "127.0.0.1", "--port", str(port)),
        *("--conf", "checkpoint", CHECKPOINT),
    ]
    Main().run()


def _train(folder: Path) -> None:
    """Run a training in this process, as MONAI Label does."""
    _settle(folder, "training.log")
    from monailabel.interfaces.app import MONAILabelApp  # noqa: F401

    from monailabel_app.main import RadFoundApp

    app = RadFoundApp(
        str(ROOT / "monailabel_app"), str(folder / "studies"), {"checkpoint": CHECKPOINT}
    )
    app.trainers["radfound"](
        {
            **{"max_steps": 60, "learning_rate": 0.02, "newest": FIRST_CORRECTIONS},
            **{"from_scratch": True, "force": True},
        },
        app.datastore(),
    )


def _settle(folder: Path, log: str) -> None:
    """Redirect all output and temporary files of this process into the folder."""
    output = os.open(folder / log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder / "cwd")
    os.environ.update(HOME=str(folder / "home"), TMPDIR=str(folder / "tmp"), HF_HUB_OFFLINE="1")
    tempfile.tempdir = str(folder / "tmp")


def _is_up(url: str) -> bool:
    try:
        return requests.get(f"{url}/radfound/health", timeout=5).ok
    except requests.RequestException:
        return False


def _is_whole(store: AdapterStore, adapter: str) -> bool:
    try:
        return store.path(adapter).is_dir()  # checks each file against its hash
    except RadFoundError:
        return False


def _strays(folder: Path) -> list[Path]:
    """Return the temporary files left in the temporary folder and beside the studies."""
    return [
        *(folder / "tmp").iterdir(),
        *(folder / "studies").rglob(f"{TEMPORARY_PREFIX}*"),
    ]


def _kill(process: BaseProcess) -> None:
    process.kill()
    process.join(STOP_S)


def _show(found: dict[str, Counts]) -> None:
    print(
        "| phase | kills | before the work was done | acknowledged | failed (5xx) | lost "
        "| server starts | adapters looked at | broken | strays |"
    )
    print("| --- |" + " --- |" * 9)
    whole = Counts()
    for phase, each in found.items():
        for name, value in vars(each).items():
            setattr(whole, name, getattr(whole, name) + value)
        print(_row(phase, each))
    print(_row("all", whole))


def _row(name: str, each: Counts) -> str:
    cells = (
        name, each.kills, each.caught, each.acknowledged, each.failed, each.lost,
        each.starts, each.adapters, each.broken, each.strays,
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
