"""Responsiveness of a server while it generates answers, and growth of its memory.

Part of `make bench`; alone: `python scripts/bench_server.py`, which prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import requests
from fuzz_server import ROOT, STOP_S, start_server
from load import Load
from serve import put_samples

from radfound.model.cache import cache_dir

WRITERS = 4
CALLS = 200
CALLING_S = 40
PAUSE_S = 0.02
CLIENTS = 8
TIMEOUT_S = 300
STOCK_APP = '''
import time

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType


class Sleep(InferTask):
    """Takes as long as an answer, without processor time."""

    def __init__(self):
        super().__init__(InferType.OTHERS, [], 3, "sleeps")

    def is_valid(self):
        return True

    def __call__(self, request):
        time.sleep(float(request["seconds"]))
        return None, {"slept": request["seconds"]}


class Stock(MONAILabelApp):
    def init_infers(self):
        return {"sleep": Sleep()}
'''


@contextmanager
def running(
    app: Path | None = None, checkpoint: str = "radfound-mini"
) -> Iterator[tuple[int, str]]:
    """Run a server on sample studies; yield its process id and address."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("home", "tmp", "studies"):
            (folder / part).mkdir()
        put_samples(folder / "studies")
        os.environ.setdefault("RADFOUND_CACHE", str(cache_dir()))  # not in the temporary home
        server, url = start_server(folder, app or ROOT / "monailabel_app", checkpoint)
        try:
            yield server.pid, url
        finally:
            server.terminate()
            server.wait(STOP_S)


def info_seconds(url: str, write: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Call `/info/` while answers are generated; return its times and those of the answers."""
    stop, answers = threading.Event(), []

    def keep_writing() -> None:
        while not stop.is_set():
            began = time.monotonic()
            write()
            answers.append(time.monotonic() - began)

    times = []
    with ThreadPoolExecutor(WRITERS) as writers:
        written = [writers.submit(keep_writing) for _ in range(WRITERS)]
        time.sleep(0.5)
        until = time.monotonic() + CALLING_S
        try:
            while len(times) < CALLS and time.monotonic() < until:
                began = time.monotonic()
                requests.get(f"{url}/info/", timeout=TIMEOUT_S).raise_for_status()
                times.append(time.monotonic() - began)
                time.sleep(PAUSE_S)
        finally:
            stop.set()
    for each in written:
        each.result()
    return times, answers


def awake(checkpoint: str) -> dict[str, float]:
    """Return the 99th percentile of `/info/` in ms during four answers, here and in stock MONAI Label."""
    with running(checkpoint=checkpoint) as (_, url):
        image = _images(url)[0]

        def ask() -> None:
            _infer(url, "radfound_report", image, {"max_new_tokens": 64})

        ask()
        times, answers = info_seconds(url, ask)
    answer_s = statistics.median(answers)
    with tempfile.TemporaryDirectory() as name:
        Path(name, "main.py").write_text(STOCK_APP)
        with running(Path(name)) as (_, url):
            image = _images(url)[0]
            stock, _ = info_seconds(url, lambda: _infer(url, "sleep", image, {"seconds": answer_s}))
    return {
        "info_p99_ms": _p99_ms(times),
        "stock_info_p99_ms": _p99_ms(stock),
        "answer_s": answer_s,
        "calls": len(times),
        "stock_calls": len(stock),
    }


def memory(checkpoint: str, few: int = 100, many: int = 1000) -> dict[str, float]:
    """Return the resident memory in MB after a few mixed requests, and after many."""
    with running(checkpoint=checkpoint) as (pid, url):
        load = Load(url, _images(url), 0.0)

        def send(numbers: range) -> None:
            with ThreadPoolExecutor(CLIENTS) as clients:
                statuses = list(clients.map(load.send_once, numbers))
            wrong = [status for status in statuses if status != "200"]
            if wrong:
                raise RuntimeError(f"{len(wrong)} of {len(numbers)} requests failed: {wrong[:5]}")

        send(range(few))
        after_few = _resident_mb(pid)
        send(range(few, many))
        return {f"after_{few}_mb": after_few, f"after_{many}_mb": _resident_mb(pid)}


def _images(url: str) -> list[str]:
    return sorted(requests.get(f"{url}/datastore/?output=all", timeout=60).json()["objects"])


def _infer(url: str, model: str, image: str, params: dict[str, object]) -> None:
    requests.post(
        f"{url}/infer/{model}",
        params={"image": image, "output": "json"},
        data={"params": json.dumps(params)},
        timeout=TIMEOUT_S,
    ).raise_for_status()


def _p99_ms(seconds: list[float]) -> float:
    return 1000 * statistics.quantiles(seconds, n=100, method="inclusive")[98]


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="radfound-mini")
    parser.add_argument("--requests", type=int, default=1000)
    args = parser.parse_args()
    found = {
        "awake": awake(args.checkpoint),
        "memory": memory(args.checkpoint, max(2, args.requests // 10), args.requests),
    }
    json.dump(found, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
