"""Fill a server's disk repeatedly, and check for lost writes and failed starts.

Run through `make bench-disk`, on Linux. Studies, state and sessions are on a disk of a few megabytes; each
round leaves a random part of it free. Clients write to every route until the disk is full and beyond; then the
server is killed and started on the full disk. Prints a Markdown table; returns 1 if an acknowledged write is
lost, a server does not start, or it answers with a 5xx other than 503.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

from kill import Place, import_everything
from writers import Writers, put_volumes

SIZE_MB, STUDIES, MOST_FREE_BYTES = 16, 300, 150_000
WRITING_S = 4.0
_INSIDE = "RADFOUND_BENCH_DISK_INSIDE"  # set in the process with its own mount namespace


@dataclass
class Counts:
    """Counts over all rounds."""

    rounds: int = 0
    acknowledged: int = 0
    refused: int = 0
    failed: int = 0
    starts: int = 0
    full: int = 0  # starts on a full disk
    lost: int = 0


def main() -> int:
    """Fill the disk in each of several rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if _INSIDE not in os.environ:
        return _with_mounts_of_its_own()
    import_everything()
    chance, counts = random.Random(args.seed), Counts()
    with tempfile.TemporaryDirectory() as name:
        place = _new_place(Path(name), chance)
        try:
            for number in range(args.rounds):
                _round(place, counts)
                print(f"round {number + 1}: {counts}", file=sys.stderr, flush=True)
        finally:
            subprocess.run(["umount", "--lazy", place.studies], check=True)
    names = [field.name for field in fields(Counts)]
    print(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    print(f"| {' | '.join(str(getattr(counts, each)) for each in names)} |")
    return 1 if counts.failed or counts.lost else 0


def _with_mounts_of_its_own() -> int:
    """Run this script again in a mount namespace of its own; return its exit status."""
    command = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        print("bench-disk: skipped, since this user may not mount a small disk", file=sys.stderr)
        return 0
    environment = {**os.environ, _INSIDE: "1"}
    return subprocess.run([*command, sys.executable, *sys.argv], env=environment).returncode


def _new_place(folder: Path, chance: random.Random) -> Place:
    """Prepare a folder whose studies are on a small disk."""
    for part in ("home", "tmp", "studies", "cwd"):
        (folder / part).mkdir()
    studies = folder / "studies"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", studies], check=True)
    (studies / ".sessions").mkdir()
    (folder / "sessions").symlink_to(studies / ".sessions")
    return Place(folder, chance, Writers(put_volumes(studies, STUDIES)))


def _round(place: Place, counts: Counts) -> None:
    """Start, fill the disk, write, kill, and start on the full disk."""
    filler, writers = place.studies / ".filler", place.writers
    before = (writers.count, writers.refused, writers.failed)
    with place.server() as (process, url):
        _look(place, url, counts)
        _fill(filler, place.chance.randrange(MOST_FREE_BYTES))
        place.write(process, url, lambda: process.join(WRITING_S))
    _fill(filler, 0)
    with place.server() as (_, url):
        _look(place, url, counts)
        counts.full += 1
    filler.unlink()
    counts.rounds += 1
    counts.acknowledged += writers.count - before[0]
    counts.refused += writers.refused - before[1]
    counts.failed += writers.failed - before[2]


def _look(place: Place, url: str, counts: Counts) -> None:
    counts.starts += 1
    for lost in place.writers.lost(url):
        counts.lost += 1
        print("lost:", lost, file=sys.stderr)


def _fill(filler: Path, free: int) -> None:
    """Fill the disk except for `free` bytes, in whole blocks."""
    with open(filler, "ab", buffering=0) as file:
        found = os.statvfs(filler.parent)
        size = max(found.f_bavail * found.f_bsize - free, 0)
        try:
            os.posix_fallocate(file.fileno(), file.tell(), max(size, 1))
        except OSError:  # no block is free
            pass


if __name__ == "__main__":
    sys.exit(main())
