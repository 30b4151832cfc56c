"""Load test of a real server with many readers: ask, correct, next, train and info.

Run through `make bench-load`. Prints percentiles as a Markdown table; returns 1 if the server
answered a 5xx other than the 503 of its queue, or lost an acknowledged correction.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import requests
from fuzz_server import STOP_S, start_server
from serve import put_samples

# Share of each kind of request, in percent.
MIX = {"ask": 45, "correct": 25, "info": 15, "next": 10, "metrics": 4, "train": 1}
PAUSE_S = 0.5
TIMEOUT_S = 300


class Load:
    """Requests of many clients to one server, with times and statuses."""

    def __init__(self, url: str, images: list[str], until: float):
        self.url = url
        self.images = images
        self.until = until
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.statuses: dict[str, Counter[str]] = defaultdict(Counter)
        self.acknowledged: set[str] = set()
        self._lock = threading.Lock()

    def client(self, number: int) -> None:
        """Send requests one after another, with short pauses, until the time is up."""
        chance = random.Random(number)
        with requests.Session() as session:
            for turn in range(1_000_000):
                if time.monotonic() > self.until:
                    return
                kind = chance.choices(list(MIX), MIX.values())[0]
                began = time.monotonic()
                status = self._send(session, kind, chance, f"load-{number}-{turn}")
                with self._lock:
                    self.seconds[kind].append(time.monotonic() - began)
                    self.statuses[kind][status] += 1
                time.sleep(chance.uniform(0, 2 * PAUSE_S))

    def send_once(self, number: int) -> str:
        """Send a request of a random kind except training; return its status."""
        chance = random.Random(number)
        kinds = [kind for kind in MIX if kind != "train"]
        kind = chance.choices(kinds, [MIX[kind] for kind in kinds])[0]
        with requests.Session() as session:
            return self._send(session, kind, chance, f"load-{number}")

    def _send(self, session: requests.Session, kind: str, chance: random.Random, name: str) -> str:
        method, path, arguments = self._request(kind, chance, name)
        try:
            response = session.request(method, self.url + path, timeout=TIMEOUT_S, **arguments)
        except requests.RequestException as error:
            return type(error).__name__
        if kind == "correct" and response.ok:
            with self._lock:
                self.acknowledged.add(name)
        if response.status_code == 503 and response.headers.get("Retry-After"):
            return "503 busy"
        if kind == "ask" and response.ok and "event: answer" not in response.text:
            return "no answer"
        return str(response.status_code)

    def _request(self, kind: str, chance: random.Random, name: str) -> tuple[str, str, dict]:
        image = chance.choice(self.images)
        if kind == "ask":
            body = {"image": image, "question": f"What is shown at {chance.randrange(50)}?"}
            return "POST", "/radfound/ask", {"json": {**body, "max_new_tokens": 8}}
        if kind == "correct":
            return "POST", "/radfound/corrections", {"json": correction(name, image)}
        if kind == "next":
            return "POST", "/activelearning/uncertainty", {"json": {"client_id": name}}
        if kind == "train":
            return "POST", "/train/radfound", {"json": {"max_steps": 5}}
        return "GET", {"info": "/info/", "metrics": "/radfound/metrics"}[kind], {}


def correction(name: str, image: str) -> dict[str, object]:
    """Return the JSON of a correction with an id and question of its own."""
    return {
        "schema": "radfound.correction/1",
        "id": name,
        "images": [image],
        "task": "vqa",
        "question": f"What is shown at {name}?",
        "model_text": "nothing",
        "verdict": "edited",
        "text": "a head",
        "author": "load",
    }


def main() -> int:
    """Start a server and measure it under load."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("home", "tmp", "studies"):
            (folder / part).mkdir()
        put_samples(folder / "studies")
        server, url = start_server(folder)
        try:
            return _measure(url, args.clients, args.seconds)
        finally:
            server.terminate()
            server.wait(STOP_S)


def _measure(url: str, clients: int, seconds: int) -> int:
    images = sorted(requests.get(f"{url}/datastore/?output=all", timeout=60).json()["objects"])
    load = Load(url, images, time.monotonic() + seconds)
    threads = [threading.Thread(target=load.client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = requests.get(f"{url}/radfound/corrections", timeout=60).json()["corrections"]
    lost = load.acknowledged - {row["id"] for row in rows}
    _show(load)
    bad = sum(
        count
        for statuses in load.statuses.values()
        for status, count in statuses.items()
        if status.startswith("5") and status != "503 busy" or not status[0].isdigit()
    )
    total = sum(len(times) for times in load.seconds.values())
    print(
        f"\n{clients} clients, {seconds} s, {total} requests; failed {bad}; corrections "
        f"acknowledged {len(load.acknowledged)}, lost {len(lost)}"
    )
    return 1 if bad or lost or not load.acknowledged else 0


def _show(load: Load) -> None:
    print(
        "| request | count | p50 s | p95 s | p99 s | statuses |\n| --- | --- | --- | --- | --- | --- |"
    )
    for kind in MIX:
        times = load.seconds[kind]
        if len(times) < 2:
            continue
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        shown = " | ".join(f"{cuts[at - 1]:.3f}" for at in (50, 95, 99))
        print(f"| {kind} | {len(times)} | {shown} | {json.dumps(load.statuses[kind])} |")


if __name__ == "__main__":
    sys.exit(main())
