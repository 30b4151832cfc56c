"""Install this package and each extra with pip into clean environments, and run the commands of their pages.

Run through `make test-extras`. Takes minutes for each extra and Python, and gigabytes if torch includes CUDA.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pages import ROOT, BlockError, Reader, pages
from serve import put_samples

PYTHONS = ("python3.10", "python3.11", "python3.12")
PAGES = {
    "": "install.md",
    "server": "install.md",
    "train": "training.md",
    "bench": "radvlbench.md",
    "reader-study": "reader-study.md",
}


def main() -> int:
    """Print a line for each extra and Python; return 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found = [name for name in PYTHONS if shutil.which(name)]
    parser.add_argument("--pythons", nargs="+", default=found, help="default: %(default)s")
    parser.add_argument("--extras", nargs="+", default=list(PAGES), choices=list(PAGES))
    args = parser.parse_args()
    failed = []
    for python in args.pythons:
        for extra in args.extras:
            name = f"{python}: pip install '.{f'[{extra}]' if extra else ''}'"
            began = time.monotonic()
            try:
                with tempfile.TemporaryDirectory(
                    prefix="radfound-", ignore_cleanup_errors=True
                ) as folder:
                    count = install_and_follow(Path(folder), python, extra)
            except (BlockError, subprocess.CalledProcessError) as error:
                failed.append(name)
                print(f"FAILED  {name}: {error}", flush=True)
                continue
            print(f"    ok  {name}: {count} blocks, {time.monotonic() - began:.0f} s", flush=True)
    tried = len(args.pythons) * len(args.extras)
    print(f"extras: {tried - len(failed)} of {tried} do what their pages promise")
    return bool(failed)


def install_and_follow(folder: Path, python: str, extra: str) -> int:
    """Run docs/install.md, then the extra's page, in a new clone and environment; return the number of blocks."""
    clone, environment = folder / "radfound", folder / "environment"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    subprocess.run([python, "-m", "venv", str(environment)], check=True)
    (clone / "studies").mkdir()
    put_samples(clone / "studies")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables["RADFOUND_CACHE"] = str(folder / "cache")
    reader = Reader(clone, environment / "bin", variables)
    for page in pages(clone):
        reader.save(page)
    count = sum(1 for _ in reader.follow(clone / "docs" / PAGES[""], installing=True))
    if extra:
        page = clone / "docs" / PAGES[extra]
        count += sum(1 for _ in reader.follow(page, extra, installing=True))
    return count


if __name__ == "__main__":
    sys.exit(main())
