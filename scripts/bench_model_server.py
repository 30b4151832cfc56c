"""Measure what the backend adds to a model server, beside a bare client of the same server.

Both send the same requests, in turn: time to the first token of one reader, and tokens per second of 8 readers.
The server is llama.cpp's with SmolLM2 and random eyes unless --url names another one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from radfound.engine.openai.address import parse_address  # noqa: E402
from radfound.engine.openai.backend import OpenAIBackend  # noqa: E402
from radfound.question import Question  # noqa: E402
from radfound.study.study import Study, StudyImage  # noqa: E402
from tests.radfound.engine.openai import llama_cpp  # noqa: E402

READERS = 8
TOKENS = 24
SLICES = 4
Ask = Callable[[Study, Question], tuple[float, int]]
"""Asks a question; returns the seconds to the first token, and the number of tokens."""


def studies() -> list[Study]:
    """Return one CT of random numbers for each reader."""
    rng = np.random.default_rng(0)
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    return [
        Study(
            [
                StudyImage(
                    rng.normal(0, 300, (SLICES, 64, 64)).astype(np.float32), affine, hounsfield=True
                )
            ]
        )
        for _ in range(READERS)
    ]


def by_backend(backend: OpenAIBackend) -> Ask:
    """Return a function that asks through the backend."""

    def ask(study: Study, question: Question) -> tuple[float, int]:
        began, first, count = time.perf_counter(), 0.0, 0
        for token in backend.stream(study, question, adapter=None, limit=TOKENS):
            first = first or time.perf_counter() - began
            count += bool(token.text)
        return first, count

    return ask


def bare(backend: OpenAIBackend, client: httpx2.Client, url: str) -> Ask:
    """Return a function that sends the backend's requests, made beforehand, and parses the lines."""
    bodies: dict[tuple[str, Question], bytes] = {}

    def ask(study: Study, question: Question) -> tuple[float, int]:
        key = study.digest, question
        if key not in bodies:
            parts = backend._studies.parts(study, question)
            body = backend._body(parts, question, None, TOKENS)
            bodies[key] = json.dumps({**body, "stream": True}).encode()
        began, first, count = time.perf_counter(), 0.0, 0
        headers = {"Content-Type": "application/json"}
        with client.stream("POST", url, content=bodies[key], headers=headers) as reply:
            for line in reply.iter_lines():
                if not line.startswith("data: {"):
                    continue
                choice = (json.loads(line[6:])["choices"] or [{}])[0]
                if choice.get("delta", {}).get("content"):
                    first = first or time.perf_counter() - began
                    count += 1
                    if count == TOKENS:
                        break
        return first, count

    return ask


def first_tokens(asks: dict[str, Ask], repeats: int) -> dict[str, list[float]]:
    """Return the seconds to the first token, one reader at a time, in turn."""
    study, found = studies()[0], {name: [] for name in asks}
    for number in range(repeats + 1):
        for name in sorted(asks, reverse=bool(number % 2)):
            # A new question, so that neither finds the other's prompt in the server's cache.
            seconds, _ = asks[name](study, Question(text=f"{name} {number}: what is shown?"))
            if number:
                found[name].append(seconds)
    return found


def throughputs(asks: dict[str, Ask], rounds: int) -> dict[str, list[float]]:
    """Return the tokens per second of all readers together, in turn."""
    made, found = studies(), {name: [] for name in asks}
    with ThreadPoolExecutor(READERS) as pool:
        for number in range(rounds + 1):
            for name in sorted(asks, reverse=bool(number % 2)):
                began = time.perf_counter()
                questions = [Question(text=f"{name} {number}: describe it.")] * READERS
                counts = [count for _, count in pool.map(asks[name], made, questions)]
                if number:
                    found[name].append(sum(counts) / (time.perf_counter() - began))
    return found


def main() -> int:
    """Print both ratios; return 1 if one misses its bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="a model server; default: llama.cpp, started here")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    with ExitStack() as stack:
        url = args.url
        if url is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            eyes = llama_cpp.write_eyes(folder / "eyes.gguf")
            options = ("--mmproj", str(eyes), "--slots", str(READERS), "--context", "1024")
            url = stack.enter_context(llama_cpp.running(*options))
        address = parse_address(url)
        backend = OpenAIBackend(address)
        stack.callback(backend.close)
        client = stack.enter_context(httpx2.Client(timeout=120, trust_env=False))
        asks = {
            "backend": by_backend(backend),
            "bare": bare(backend, client, f"{address.url}/chat/completions"),
        }
        first = first_tokens(asks, args.repeats)
        speed = throughputs(asks, args.rounds)
    pairs = zip(first["backend"], first["bare"], strict=True)
    added_ms = 1000 * statistics.median(one - other for one, other in pairs)
    ratio = statistics.median(a / b for a, b in zip(speed["backend"], speed["bare"], strict=True))
    medians = {name: 1000 * statistics.median(values) for name, values in first.items()}
    print(
        f"first token: backend {medians['backend']:.0f} ms, bare client {medians['bare']:.0f} ms, "
        f"added {added_ms:+.1f} ms (at most 15)"
    )
    rates = {name: statistics.median(values) for name, values in speed.items()}
    print(
        f"{READERS} readers: backend {rates['backend']:.0f} tokens/s, bare client {rates['bare']:.0f}, "
        f"ratio {ratio:.2f} (at least 0.9)"
    )
    return int(added_ms > 15 or ratio < 0.9)


if __name__ == "__main__":
    sys.exit(main())
