"""Users have what requirements.txt lists, whatever else is installed where the tests run."""

import ast
import os
import re
import runpy
import subprocess
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from unittest import mock

import pytest

from radfound.commands import run_command
from radfound.datasets import Kit
from tests.monailabel_app.conftest import (
    QUICK_TRAINING,
    VOLUME,
    fill_with_studies,
    running_server,
)
from tests.test_architecture import imported_names

ROOT = Path(__file__).parents[1]
OWN = ("radfound", "training", "monailabel_app")
FOUND_BESIDE = (*OWN, "scripts", "tests")
# Imported by `library`, which names the extra that brings what it needs.
BEHIND_AN_EXTRA = {
    "radfound/reader_study/rating/server.py": "reader-study",
    "radfound/same_origin.py": "reader-study",  # of that server, and of the app
    **{
        f"radfound/engine/openai/{name}.py": "openai"
        for name in ("adapters", "backend", "connection", "failures", "prompt", "server")
    },
}
CORRECTION = {
    "schema": "radfound.correction/1",
    "id": "9c0e8a4e-5d0f-4c52-8f5c-6a1f0d1f7f10",
    "images": [VOLUME],
    "task": "vqa",
    "question": "Which organ is shown?",
    "model_text": "the heart",
    "verdict": "edited",
    "text": "the liver",
    "author": "a reader",
}
HIDE = """
import sys
from importlib.machinery import PathFinder

class UsersFinder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = UsersFinder
"""


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def distribution(requirement):
    return canonical(re.match(r"[\w.-]+", requirement)[0])


def listed(file):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return {distribution(line) for line in lines if line and not line.startswith("#")}


def declared():
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    return setup.call_args.kwargs


brought_by = cache(packages_distributions)


def foreign_imports(file):
    """Go through the packages that a file imports, with the distributions that bring them."""
    for line, name in imported_names(ast.parse(file.read_text(encoding="utf-8"))):
        package = name.partition(".")[0]
        if package not in sys.stdlib_module_names and package not in FOUND_BESIDE:
            yield line, name, {canonical(each) for each in brought_by().get(package, [package])}


def imports_of_others(files, known):
    return [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in files
        for line, name, distributions in foreign_imports(file)
        if not distributions & known
    ]


@pytest.fixture(scope="module")
def users_only(tmp_path_factory):
    """Variables under which a Python process finds nothing that requirements.txt does not list."""
    extra = listed("requirements-dev.txt") - listed("requirements.txt")
    hidden = {
        package
        for package, distributions in brought_by().items()
        if set(map(canonical, distributions)) <= extra and package not in FOUND_BESIDE
    }
    assert {"webdataset", "pytest", "sklearn"} <= hidden
    folder = tmp_path_factory.mktemp("users")
    (folder / "sitecustomize.py").write_text(HIDE.format(hidden=hidden))
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def test_no_package_is_in_both_lists():
    assert listed("requirements.txt") & listed("requirements-dev.txt") == set()


@pytest.mark.parametrize("part", [*OWN, "scripts/serve.py"])
def test_what_users_run_imports_only_what_requirements_txt_lists(part):
    files = sorted((ROOT / part).rglob("*.py")) or [ROOT / part]
    assert imports_of_others(files, listed("requirements.txt")) == []


def test_the_library_imports_only_what_it_declares():
    files = sorted((ROOT / "radfound").rglob("*.py")) + sorted((ROOT / "training").rglob("*.py"))
    known = set(map(distribution, declared()["install_requires"]))
    core = [file for file in files if str(file.relative_to(ROOT)) not in BEHIND_AN_EXTRA]
    assert imports_of_others(core, known) == []


@pytest.mark.parametrize("file", BEHIND_AN_EXTRA)
def test_a_module_behind_an_extra_imports_only_what_that_declares(file):
    package = declared()
    needed = [*package["install_requires"], *package["extras_require"][BEHIND_AN_EXTRA[file]]]
    assert imports_of_others([ROOT / file], set(map(distribution, needed))) == []


def test_every_module_can_be_imported_where_only_users_packages_are(users_only):
    code = f"""
import importlib, pkgutil
for part in {OWN!r}:
    package = importlib.import_module(part)
    for found in pkgutil.walk_packages(package.__path__, part + "."):
        if not found.name.endswith(("__main__", "monailabel_app.main")):
            importlib.import_module(found.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **users_only},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_server_with_users_packages_alone_tells_of_itself_and_learns(users_only, tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    with running_server(studies, tmp_path / "log", variables=users_only) as server:
        assert "learning_rate" in server.get("/info/").json()["trainers"]["radfound"]["config"]
        assert server.post("/radfound/corrections", json=CORRECTION).ok
        assert server.post("/train/radfound", json=QUICK_TRAINING).ok
        status = server.training_status()
        assert status["status"] == "DONE", status["details"]
        assert server.ask(VOLUME, CORRECTION["question"]).json()["text"] == CORRECTION["text"]


def test_a_missing_library_is_named_with_its_extra_in_one_line(users_only, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "training.data.shards", "jsonl", "a.jsonl", "--out", str(tmp_path)],
        env={**os.environ, **users_only},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "pip install '.[train]'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["radfound.engine.engine", "training.stages.pretrain"])
def test_threads_are_told_how_to_wait_before_torch_is_loaded(module):
    code = f"""
import os, sys
os.environ.pop("GOMP_SPINCOUNT", None)
class AtTorch:
    def find_spec(self, name, path=None, target=None):
        assert name != "torch" or os.environ["GOMP_SPINCOUNT"] == "1000"
sys.meta_path.insert(0, AtTorch())
import {module}
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_command_ends_with_one_line_where_its_data_are_missing(capsys, tmp_path):
    with pytest.raises(SystemExit, match="1"):
        run_command(lambda: Kit(tmp_path / "nowhere"))
    said = capsys.readouterr().err
    assert "nowhere" in said and len(said.splitlines()) == 1


def test_every_command_of_a_module_ends_with_one_line():
    files = [*(ROOT / "radfound").rglob("*.py"), *(ROOT / "training").rglob("*.py")]
    # `main` of radfound.cli, and these, catch this project's errors.
    ways = (
        "run_command(main)", "except RadFoundError as error:", "run_stage(", "from radfound.cli import main",
    )  # fmt: skip
    commands = [f for f in files if '__name__ == "__main__"' in f.read_text(encoding="utf-8")]
    careless = [f for f in commands if not any(way in f.read_text() for way in ways)]
    assert commands and careless == []
