"""The stand-in for PythonQt answers as the real one did (facts/pythonqt_recorded.json)."""

import json
from pathlib import Path

import pytest

from .facts import pythonqt_probes
from .standin.pythonqt import application, qt

RECORDED = json.loads(
    (Path(__file__).parent / "facts" / "pythonqt_recorded.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def answers():
    application()
    return {name: repr(answer) for name, answer in pythonqt_probes.run(qt)}


@pytest.mark.parametrize(("probe", "answer"), RECORDED, ids=[name for name, _ in RECORDED])
def test_it_answers_as_the_real_one(answers, probe, answer):
    assert answers[probe] == answer


def test_every_probe_was_recorded(answers):
    assert list(answers) == [name for name, _ in RECORDED]


def test_a_slot_gets_every_argument_or_fails(answers):
    """PythonQt drops arguments that a slot does not take; nothing here may rely on it."""
    from .standin import pythonqt

    pythonqt.errors.clear()
    button = qt.QPushButton("x")
    button.connect("clicked(bool)", lambda: None)
    button.click()

    assert len(pythonqt.errors) == 1
    pythonqt.errors.clear()


def test_an_unknown_signal_cannot_be_connected():
    with pytest.raises(ValueError, match="no signal"):
        qt.QPushButton("x").connect("touched()", lambda: None)
