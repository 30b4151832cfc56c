import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from radfound.exceptions import TrainingError
from training.stages.config import load_config, run_stage

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Inner:
    steps: int
    rate: float = 0.1
    deep: bool = False


@dataclass(frozen=True)
class Outer:
    data: Path
    out: Path
    loop: Inner
    name: str = "x"
    sizes: tuple[int, ...] = (1, 2)
    shares: dict[str, float] = field(default_factory=dict)
    limit: int | None = None
    kind: Literal["lora", "full"] = "lora"


WHOLE = """
data: kit
out: ~/runs
loop: {steps: 5, rate: 1e-3, deep: true}
sizes: [3, 4, 5]
shares: {a: 1, b: 0.5}
limit: 7
kind: full
"""


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "some.yaml").write_text(text)
        return tmp_path / "some.yaml"

    return write


def test_a_file_becomes_settings_of_the_types_that_the_stage_asks_for(written):
    found = load_config(Outer, written(WHOLE))
    assert found == Outer(
        Path("kit"), Path.home() / "runs", Inner(5, 1e-3, True), "x", (3, 4, 5),
        {"a": 1.0, "b": 0.5}, 7, "full",
    )  # fmt: skip
    assert isinstance(found.shares["a"], float)


def test_words_of_the_command_line_win_over_the_file(written):
    words = ["loop.steps=9", "name=y z", "limit=null", "sizes=[8]", "shares.c=2"]
    found = load_config(Outer, written(WHOLE), words)
    assert (found.loop.steps, found.loop.rate, found.name) == (9, 1e-3, "y z")
    assert (found.limit, found.sizes, found.shares["c"]) == (None, (8,), 2.0)


def test_settings_need_no_file():
    found = load_config(Outer, None, ["data=a", "out=b", "loop.steps=1"])
    assert found == Outer(Path("a"), Path("b"), Inner(1))


@pytest.mark.parametrize(
    "change, words",
    [
        ("loop.step=3", ["loop.step ", "did you mean steps", "deep, rate, steps"]),
        ("colour=red", ["colour is no setting", "Known here: data"]),
        ("loop.steps=1.5", ["loop.steps is 1.5 (float)", "expected int"]),
        ("loop.steps=true", ["loop.steps is True", "expected int"]),
        ("loop.rate=fast", ["loop.rate is 'fast'", "expected float"]),
        ("loop.deep=1", ["loop.deep is 1", "expected bool"]),
        ("name=3", ["name is 3", "expected str"]),
        ("kind=half", ["kind is 'half'", "lora"]),
        ("sizes=[1, a]", ["sizes[1] is 'a'"]),
        ("loop=5", ["loop is 5 (int)", "Inner"]),
        ("limit=x", ["limit is 'x'", "expected int"]),
        ("name.first=x", ["name is "]),
        ("loop.steps", ["key=value"]),
        ("name=[", ["no YAML"]),
    ],
)
def test_what_is_wrong_is_named(written, change, words):
    with pytest.raises(TrainingError) as error:
        load_config(Outer, written(WHOLE), [change])
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "text, words",
    [
        ("data: a\nout: b\n", "loop not set"),
        ("data: a\nout: b\nloop: {rate: 1}\n", "loop.steps not set"),
        ("- a\n", "expected keys and values"),
        ("a: [", "is no YAML"),
        (WHOLE + "limit: 8\n", "second time in line 9"),
    ],
)
def test_a_file_that_is_no_settings_is_named(written, text, words):
    with pytest.raises(TrainingError, match=words) as error:
        load_config(Outer, written(text))
    assert "some.yaml" in str(error.value)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(TrainingError, match="none.yaml: cannot be read"):
        load_config(Outer, tmp_path / "none.yaml")


def test_every_stage_has_the_same_command_line(written):
    seen = []
    run_stage(
        "some", Outer, seen.append, None,
        ["--config", str(written(WHOLE)), "--data", "it's: here", "loop.steps=2", "--out", "9"],
    )  # fmt: skip
    assert seen[0].loop.steps == 2
    assert (seen[0].data, seen[0].out) == (Path("it's: here"), Path("9"))


def test_an_error_of_a_stage_is_one_line_and_no_traceback(capsys):
    def stage(config):
        raise TrainingError("the folder is empty")

    with pytest.raises(SystemExit) as stop:
        run_stage("some", Inner, stage, None, ["steps=3"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "training.stages.some: the folder is empty\n"


@pytest.mark.parametrize("stage", ["pretrain", "align", "instruct"])
def test_the_settings_that_come_along_are_read(stage):
    module = importlib.import_module(f"training.stages.{stage}")
    cls = getattr(module, f"{stage.capitalize()}Config")
    path = ROOT / "training" / "stages" / "configs" / f"{stage}.yaml"
    folders = ["data=kit", "out=run", *(["vision=v.safetensors"] if stage != "pretrain" else [])]
    assert load_config(cls, path, folders).loop.steps > 0
