"""Read thousands of broken files, each within a time limit, and count what came of them.

Run through `make fuzz`; `python -m tests.hostile.files --only NUMBER` reads one of them again.
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import sys
import tempfile
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from .mutation import READ, REFUSED, limit_memory, mutations, read_it

HANG_S = 10.0


def main() -> int:
    """Print the counts as Markdown; return 1 if anything but reading or refusing happened."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=11_000)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--only", type=int, help="number of one file, to read it alone")
    args = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    slowest = (0.0, 0, "")
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(Path(folder))
        for number, name, content in mutations(args.count, args.seed):
            if args.only not in (None, number):
                continue
            outcome, seconds = worker.read(name, content)
            slowest = max(slowest, (seconds, number, name))
            kind = outcome if outcome in (READ, REFUSED) else "failed"
            counts.setdefault(name, Counter())[kind] += 1
            if kind == "failed":
                print(f"{number} {name}: {outcome}", file=sys.stderr)
        worker.stop()
        left = [path.name for path in Path(folder).iterdir()]
    _show(counts, slowest)
    return 1 if left or any(each["failed"] for each in counts.values()) else 0


class Worker:
    """A process that reads files; made anew when one kills it or takes too long."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def read(self, name: str, content: bytes) -> tuple[str, float]:
        """Return what came of a file, and the seconds that it took."""
        self._pipe.send((name, content))
        try:
            if self._pipe.poll(HANG_S):
                outcome, seconds = self._pipe.recv()
                return str(outcome), float(seconds)
            outcome = f"no end within {HANG_S:.0f} s"
        except EOFError:
            outcome = "the process died"
        self.stop()
        self._start()
        return outcome, HANG_S

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs, self._folder))
        self._process.start()
        theirs.close()
        self._pipe.send(("warm.up", b""))  # imports are no part of a file's time
        self._pipe.recv()


def _serve(pipe: Connection, folder: Path) -> None:
    faulthandler.enable()
    limit_memory()
    while True:
        pipe.send(read_it(*pipe.recv(), folder))


def _show(counts: dict[str, Counter[str]], slowest: tuple[float, int, str]) -> None:
    print("| file | mutations | read | refused | failed |\n| --- | --- | --- | --- | --- |")
    total: Counter[str] = Counter()
    for name, each in [*sorted(counts.items()), ("all", total)]:
        total.update(each if each is not total else {})
        row = (name, each.total(), each[READ], each[REFUSED], each["failed"])
        print(f"| {' | '.join(map(str, row))} |")
    seconds, number, name = slowest
    print(f"\nslowest: {seconds:.2f} s (number {number}, {name})")


if __name__ == "__main__":
    sys.exit(main())
