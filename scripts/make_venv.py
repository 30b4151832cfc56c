"""Make `.venv` for users, and `.venv-dev` for tests and checks; needs only the standard library.

`.venv` holds the packages of requirements.txt only, so that the server never depends on a package of the
tests. Run through `make`, which calls this script when a requirements file is newer than the last success.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
USERS_VENV, DEVELOPMENT_VENV = ROOT / ".venv", ROOT / ".venv-dev"
RUNTIME = ROOT / "requirements.txt"
DEVELOPMENT = ROOT / "requirements-dev.txt"
# Libraries of Qt and VTK, and a font; a fresh Debian lacks them.
DEBIAN_LIBRARIES = (
    "libegl1", "libgl1", "libx11-6", "libxkbcommon0", "libdbus-1-3", "libfontconfig1",
    "libglib2.0-0", "fonts-dejavu-core",
)  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OLDEST, NEWEST = (3, 11), (3, 12)
QUIETLY = ("-q", "--disable-pip-version-check", "--no-input")


class SetupError(Exception):
    """A step of the set-up failed; the message gives the remedy."""


def main() -> int:
    """Install missing parts; print one line and return 1 if a step fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dev", action="store_true", help="make .venv-dev instead of .venv")
    args = parser.parse_args()
    try:
        if args.dev:
            make_environment(DEVELOPMENT_VENV, RUNTIME, DEVELOPMENT)
            install_libraries()
            install_browser()
        else:
            make_environment(USERS_VENV, RUNTIME)
    except SetupError as error:
        print(f"set-up failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("set-up interrupted; the next make restarts it", file=sys.stderr)
        return 130
    return 0


def make_environment(folder: Path, *requirements: Path) -> None:
    """Rebuild a virtual environment, unless it was made from the same requirements.

    torch is installed first with its dependencies, then all other pinned packages, then this package.
    """
    stamp = folder / ".ready"
    wanted = _digest(*requirements, ROOT / "setup.py", Path(__file__))
    if not (_is_done(stamp, wanted) and _version_of(folder / "bin" / "python")):
        python = _find_python()
        shutil.rmtree(folder, ignore_errors=True)
        _run(f"making {folder.name}", [python, "-m", "venv", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", *QUIETLY]
        torch = next(line for line in _lines(RUNTIME) if line.startswith("torch=="))
        _run(f"installing {torch}", [*pip, "--constraint", str(RUNTIME), torch])
        for file in requirements:
            _run(f"installing {file.name}", [*pip, "--no-deps", "-r", str(file)])
        own = ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
        _run("installing radfound", [*pip, *own])
        _check_imports(folder)
    _mark_done(stamp, wanted)


def install_libraries() -> None:
    """Check that Qt and Slicer's data library load; install missing libraries if allowed."""
    code = "import slicer; from PySide6 import QtSvg, QtTest, QtUiTools, QtWidgets"
    check = [str(DEVELOPMENT_VENV / "bin" / "python"), "-c", code]
    if subprocess.run(check, capture_output=True).returncode == 0:
        return
    try:
        _apt_get("system libraries for Qt and VTK", DEBIAN_LIBRARIES)
        _run("checking Qt and Slicer's data library", check)
    except SetupError as error:
        message = f"tests of the Slicer extension are skipped, they lack libraries: {error}"
        print(message, file=sys.stderr)


def install_browser() -> None:
    """Check that there is a browser for Playwright; install one if allowed."""
    if any(shutil.which(name) for name in BROWSERS):
        return
    try:
        _apt_get("chromium", (*BROWSERS[:1], "fonts-dejavu-core"))
    except SetupError as error:
        message = f"tests of the reader study's page are skipped, they lack a browser: {error}"
        print(message, file=sys.stderr)


def _apt_get(what: str, packages: tuple[str, ...]) -> None:
    """Install Debian packages; SetupError gives the command if this user may not."""
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if os.geteuid() or not shutil.which("apt-get"):
        raise SetupError(f"on Debian, install them with: sudo {' '.join(install)}")
    _run("looking for system packages", ["apt-get", "update"])
    _run(f"installing {what}", install)


def _find_python() -> str:
    """Return a Python version for which the pinned packages exist, this one first."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and _version_of(Path(found)):
            return found
    raise SetupError(
        f"found Python {sys.version_info[0]}.{sys.version_info[1]} as {sys.executable}; the pinned "
        f"packages need {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}; install one and name "
        "it, as in `make serve PYTHON=/usr/bin/python3.11`"
    )


def _version_of(python: Path) -> tuple[int, int] | None:
    """Return the version of an interpreter, or None if it does not run or is not supported."""
    code = "import sys; print(sys.version_info[0], sys.version_info[1])"
    try:
        out = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
        major, minor = (int(part) for part in out.stdout.split())
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return (major, minor) if OLDEST <= (major, minor) <= NEWEST else None


def _run(step: str, command: list[str]) -> None:
    """Run one step; on failure print the end of its output."""
    print(f"{step} ...", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    except OSError as error:
        raise SetupError(f"{step}: {command[0]} cannot be run ({error.strerror})") from error
    if done.returncode:
        print("\n".join(done.stdout.splitlines()[-15:]), file=sys.stderr)
        raise SetupError(f"{step}: exit status {done.returncode}; {_advice(done.stdout)}")


def _advice(output: str) -> str:
    text = output.lower()
    if "no space left" in text:
        return "the disk is full; about 4 GB are needed (more where torch brings CUDA)"
    if "no matching distribution" in text or "connection" in text or "temporary failure" in text:
        return "no package index could be reached, or it lacks this version; check the network"
    if "ensurepip" in text:
        return "Python lacks venv; on Debian `apt-get install python3-venv`"
    return "see the lines above, then run make again"


def _check_imports(folder: Path) -> None:
    code = "import radfound, training, monailabel_app, torch, transformers, itk, monailabel.app"
    _run("checking the installation", [str(folder / "bin" / "python"), "-c", code])


def _lines(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _digest(*paths: Path) -> str:
    sha = hashlib.sha256()
    for path in paths:
        sha.update(path.read_bytes())
    return sha.hexdigest()


def _is_done(stamp: Path, wanted: str) -> bool:
    """Whether these requirements are installed; compares contents, since a checkout changes times."""
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted


def _mark_done(stamp: Path, wanted: str) -> None:
    part = stamp.with_name(f"{stamp.name}.part")
    part.write_text(wanted, encoding="utf-8")
    os.replace(part, stamp)


if __name__ == "__main__":
    sys.exit(main())
