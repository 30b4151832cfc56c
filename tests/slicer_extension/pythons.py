"""Slicer's Pythons, where this machine has them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.9", "3.11", "3.12")  # 3.9 is in Slicer 5.8, 3.12 in those after it


def python(version):
    """Return an interpreter of this version; skip where there is none."""
    if sys.version_info[:2] == tuple(int(part) for part in version.split(".")):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python")]
    for each in found:
        if each and has_version(each, version):
            return str(each)
    pytest.skip(f"no Python {version}: install one (pyenv install {version}) to test it")


def has_version(interpreter, version):
    """Whether it runs; pyenv's shims are there even if the version is not chosen."""
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    command = [str(interpreter), "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.returncode == 0 and run.stdout.strip() == version


def run_module(interpreter, module, *arguments, timeout_s=300):
    """Run one of the tests' modules as a program and return what it prints.

    It finds the extension and the tests, and nothing that this project installs.
    """
    path = os.pathsep.join([str(ROOT / "slicer_extension" / "RadFound"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [interpreter, "-m", f"tests.slicer_extension.{module}", *arguments]
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    assert run.returncode == 0, run.stderr
    return run.stdout
