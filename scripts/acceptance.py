"""Prove what a user gets: a fresh clone, an empty home, `make serve`, and everything that is promised of it.

Nothing of requirements-dev.txt is installed. MONAI Label's client and the Slicer extension's client do all
they can, one training is published and answers, and the blocks of README and docs run as they stand.
Needs only Python's standard library, git and make; `--revision` proves an older version.
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
# What a user's shell has; the rest of this one's variables might help the server along.
KEPT = re.compile(
    r"PATH|LANG|LC_.*|TERM|TMPDIR|USER|PIP_.*|SSL_.*|.*_PROXY|.*_proxy|.*CERT.*|PYENV_.*"
)


class Refused(Exception):
    """The users' environment is not as promised; the message says what was found."""


def main() -> int:
    """Prove it; return 1 with one line if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--revision", default="HEAD", help="which commit; default: %(default)s")
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
    """Do what a user does in a new clone; return how many blocks were run."""
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
    """Run `make serve` until its last line; yields the port, and stops it in the end."""
    port, said = free_port(), clone.parent / "make-serve.txt"
    with open(said, "wb") as output:
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
        while LAST_LINE not in (text := said.read_text(errors="replace")):
            if server.poll() is not None or time.monotonic() > deadline:
                raise Refused(f"make serve did not come to its last line\n{text[-2000:]}")
            time.sleep(0.5)
        print(text, flush=True)
        yield port
    finally:
        stop(server)


def nothing_else_is_installed(python: Path, clone: Path, variables: dict[str, str]) -> None:
    """See that the environment holds what requirements.txt lists, pip, and RadFound."""
    listing = run([python, "-m", "pip", "list", "--format", "json"], clone, variables)
    found = {canonical(each["name"]) for each in json.loads(listing)}
    lines = (clone / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = {canonical(line.split("==")[0]) for line in lines if "==" in line}
    if found != listed | {"pip", "radfound"}:
        differing = found ^ (listed | {"pip", "radfound"})
        raise Refused(f".venv and requirements.txt differ: {', '.join(sorted(differing))}")
    print(f"  ok  .venv holds the {len(listed)} packages of requirements.txt, and no others")


def follow(page: Path, reader: Reader) -> int:
    """Run the blocks of a page that need no extra; return how many."""
    count = sum(1 for _ in reader.follow(page))
    if count:
        print(f"  ok  {page.name}: {count} blocks run", flush=True)
    return count


def git_ignores_what_was_written(clone: Path) -> None:
    """See that nothing that the commands wrote would be committed."""
    status = run(["git", "status", "--porcelain"], clone, dict(os.environ))
    if status:
        raise Refused(f"git would commit what the commands wrote:\n{status}")
    print("  ok  git ignores what the commands wrote")


def nobody_answers(port: int) -> None:
    """See that the server is gone."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise Refused(f"something still answers on port {port} after make serve has ended")
    print("  ok  the server is stopped")


def run(command: list[object], folder: Path, variables: dict[str, str], show: bool = False) -> str:
    """Run a step; return what it printed."""
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
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
