"""Acceptance test in a user's environment: a fresh clone, an empty home and `make serve`.

Nothing from requirements-dev.txt is installed. Calls every function of MONAI Label's client and of the Slicer
extension's client, publishes one training and asks its adapter, and runs the blocks of README and docs unchanged.
Needs only Python's standard library, git and make; `--revision` tests an older version.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pages import ROOT, BlockError, Reader, pages, stop

PORT_OF_PAGES = 8000
SET_UP_S = 1200
LAST_LINE = "Ctrl-C stops the server."
# Variables of a user's shell; others of this shell might hide a defect.
KEPT = re.compile(
    r"PATH|LANG|LC_.*|TERM|TMPDIR|USER|PIP_.*|SSL_.*|.*_PROXY|.*_proxy|.*CERT.*|PYENV_.*"
)


class Refused(Exception):
    """The users' environment does not work as documented; the message says what was found."""


def main() -> int:
    """Run the test; return 1 with one line if a step fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--revision", default="HEAD", help="commit to test; default: %(default)s")
    args = parser.parse_args()
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="radfound-", ignore_cleanup_errors=True) as folder:
            count = prove(Path(folder), args.revision)
    except (Refused, BlockError) as error:
        print(f"acceptance FAILED: {error}", file=sys.stderr)
        return 1
    minutes = (time.monotonic() - began) / 60
    print(f"acceptance passed: users' environment, {count} blocks of the pages, {minutes:.1f} min")
    return 0


def prove(folder: Path, revision: str) -> int:
    """Run all steps in a new clone; return the number of blocks run."""
    clone, home = folder / "radfound", folder / "home"
    home.mkdir()
    run(["git", "clone", "--quiet", str(ROOT), str(clone)], folder, dict(os.environ))
    run(["git", "checkout", "--quiet", "--detach", commit_of(revision)], clone, dict(os.environ))
    variables = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
    variables["HOME"] = str(home)
    with make_serve(clone, variables) as port:
        python = clone / ".venv" / "bin" / "python"
        nothing_else_is_installed(python, clone, variables)
        clients = [python, ROOT / "scripts" / "acceptance_clients.py", f"http://127.0.0.1:{port}"]
        run([*clients, clone / "slicer_extension" / "RadFound"], folder, variables, show=True)
        reader = Reader(clone, python.parent, variables, {PORT_OF_PAGES: port})
        for page in pages(clone):
            reader.save(page)
        count = sum(follow(page, reader) for page in pages(clone))
        git_ignores_what_was_written(clone)
        nothing_else_is_installed(python, clone, variables)
    nobody_answers(port)
    return count


@contextmanager
def make_serve(clone: Path, variables: dict[str, str]) -> Iterator[int]:
    """Run `make serve` until its last line; yield the port, and stop the server at the end."""
    port, log = free_port(), clone.parent / "make-serve.txt"
    with open(log, "wb") as output:
        server = subprocess.Popen(
            ["make", "serve", f"PORT={port}"],
            cwd=clone,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + SET_UP_S
        while LAST_LINE not in (text := log.read_text(errors="replace")):
            if server.poll() is not None or time.monotonic() > deadline:
                raise Refused(f"make serve did not print its last line\n{text[-2000:]}")
            time.sleep(0.5)
        print(text, flush=True)
        yield port
    finally:
        stop(server)


def nothing_else_is_installed(python: Path, clone: Path, variables: dict[str, str]) -> None:
    """Check that the environment holds the packages of requirements.txt, pip and RadFound only."""
    listing = run([python, "-m", "pip", "list", "--format", "json"], clone, variables)
    found = {canonical(each["name"]) for each in json.loads(listing)}
    lines = (clone / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = {canonical(line.split("==")[0]) for line in lines if "==" in line}
    if found != listed | {"pip", "radfound"}:
        differing = found ^ (listed | {"pip", "radfound"})
        raise Refused(f".venv and requirements.txt differ: {', '.join(sorted(differing))}")
    print(f"  ok  .venv holds the {len(listed)} packages of requirements.txt, and no others")


def follow(page: Path, reader: Reader) -> int:
    """Run the blocks of a page that need no extra; return their number."""
    count = sum(1 for _ in reader.follow(page))
    if count:
        print(f"  ok  {page.name}: {count} blocks run", flush=True)
    return count


def git_ignores_what_was_written(clone: Path) -> None:
    """Check that git ignores the files that the commands wrote."""
    status = run(["git", "status", "--porcelain"], clone, dict(os.environ))
    if status:
        raise Refused(f"git would commit what the commands wrote:\n{status}")
    print("  ok  git ignores what the commands wrote")


def nobody_answers(port: int) -> None:
    """Check that the server has stopped."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise Refused(f"something still answers on port {port} after make serve has ended")
    print("  ok  the server is stopped")


def run(command: list[object], folder: Path, variables: dict[str, str], show: bool = False) -> str:
    """Run a command; return its output."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=variables,
        stdout=None if show else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise Refused(f"{Path(str(command[0])).name} {Path(str(command[1])).name}: {last}")
    return done.stdout or ""


def commit_of(revision: str) -> str:
    """Return the hash of a commit of this checkout."""
    return run(["git", "rev-parse", revision], ROOT, dict(os.environ)).strip()


def canonical(name: str) -> str:
    """Return a distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def free_port() -> int:
    """Return an unused port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
