"""The README's blocks run as they stand."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.monailabel_app.conftest import running_server

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program):
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(program)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the sample study where the README has it."""
    (tmp_path / "studies").mkdir()
    nilearn = Path(importlib.util.find_spec("nilearn").submodule_search_locations[0])
    brain = nilearn / "datasets" / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    shutil.copyfile(brain, tmp_path / "studies" / "sample_brain_mr.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(place, code, capsys):
    exec(compile(code, "README.md", "exec"), {})
    assert "MRI" in capsys.readouterr().out


@pytest.mark.parametrize("line", commands("make "))
def test_make_targets_exist(line):
    done = subprocess.run(
        [*shlex.split(line, comments=True), "--dry-run"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", commands("radfound "))
def test_command_lines_run(place, line):
    program = [sys.executable, "-m", "radfound.cli", *shlex.split(line)[1:]]
    done = subprocess.run(program, cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_curl_line_gives_a_right_answer(place):
    (line,) = commands("curl ")
    with running_server(
        place / "studies", place / "log", "--conf", "checkpoint", "radfound-mini"
    ) as server:
        done = subprocess.run(
            ["bash", "-c", line.replace("127.0.0.1:8000", server.url.removeprefix("http://"))],
            capture_output=True,
            text=True,
            timeout=300,
        )
    answer = json.loads(done.stdout)
    assert answer["schema"] == "radfound.answer/1" and answer["text"] == "MRI"


def test_python_modules_named_in_the_readme_and_docs_exist():
    pages = README + "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    names = set(re.findall(r"python -m ([a-z_.]+)", pages))
    assert names and all(importlib.util.find_spec(name) for name in names)


def test_links_lead_somewhere():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert [target for target in targets if not (ROOT / target).exists()] == []
