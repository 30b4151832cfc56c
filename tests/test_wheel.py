"""What `pip install` brings: the list of files of the wheel."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIST = """
from distutils.core import run_setup
import setuptools
build = run_setup("setup.py", stop_after="init").get_command_obj("build_py")
build.ensure_finalized()
for package, module, path in build.find_all_modules():
    print(path)
for package, folder, _, names in build.data_files:
    for name in names:
        print(f"{folder}/{name}")
"""


@pytest.fixture(scope="module")
def files():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIST],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {Path(line) for line in done.stdout.splitlines()}


def modules_of(part):
    return {path.relative_to(ROOT) for path in (ROOT / part).rglob("*.py")}


@pytest.mark.parametrize("part", ["radfound", "training", "monailabel_app"])
def test_every_module_but_the_experiments_is_in_the_wheel(files, part):
    experiments = modules_of("training/experiments")
    assert experiments
    assert modules_of(part) - experiments == {
        file for file in files if file.parts[0] == part and file.suffix == ".py"
    }
    assert not files & experiments


def test_weights_pages_and_settings_are_in_the_wheel(files):
    for folder, pattern in (
        ("radfound/weights", "*/model.safetensors"),
        ("radfound/weights", "*/adapter/*"),
        ("radfound/reader_study/rating/page", "*.html"),
        ("training/stages/configs", "*.yaml"),
    ):
        found = {path.relative_to(ROOT) for path in (ROOT / folder).glob(pattern)}
        assert found and found <= files, pattern


def test_nothing_of_the_product_imports_an_experiment():
    sources = [
        path
        for part in ("radfound", "training", "monailabel_app")
        for path in (ROOT / part).rglob("*.py")
        if "experiments" not in path.parts
    ]
    assert not [
        path for path in sources if "training.experiments" in path.read_text(encoding="utf-8")
    ]
