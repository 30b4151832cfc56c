"""What Slicer knows about a study is sent with a question only if the reader ticks it."""

from types import SimpleNamespace

import pytest
import slicer

from .desk import add_volume, is_shown

HEADER = {
    "0008,0060": "CT",
    "0018,0015": "CHEST",
    "0010,1010": "067Y",
    "0010,0040": "F",
    "0010,0010": "Doe^Jane",
    "0010,0020": "12345",
}
BOXES = ("modalityKnownBox", "bodyPartKnownBox", "ageKnownBox", "sexKnownBox", "windowKnownBox")


@pytest.fixture
def dicom(desk, monkeypatch):
    """The volume of the desk, as if it came from Slicer's DICOM database."""
    asked = []

    def value(_instance, tag):
        asked.append(tag)
        return HEADER[tag]

    monkeypatch.setattr(
        slicer, "dicomDatabase", SimpleNamespace(instanceValue=value), raising=False
    )
    desk.volume.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    desk.panel.tell("study")
    desk.header_asked = asked
    return desk


def test_nothing_is_sent_unless_it_is_ticked(dicom):
    assert [getattr(dicom.ui, name).text for name in BOXES[:4]] == [
        "CT", "chest", "60 to 69 years", "female",
    ]  # fmt: skip
    assert not any(getattr(dicom.ui, name).checked for name in BOXES)

    dicom.ask()

    assert "history" not in dicom.server.asked[-1]


def test_what_is_ticked_is_sent_as_it_is_shown_and_never_a_name_or_id(dicom):
    for name in BOXES:
        getattr(dicom.ui, name).checked = True

    dicom.ask()

    [turn] = dicom.server.asked[-1]["history"]
    assert turn["answer"].startswith("CT; chest; 60 to 69 years; female; window ")
    assert set(dicom.header_asked) == {"0008,0060", "0018,0015", "0010,1010", "0010,0040"}


def test_ticks_are_gone_for_the_next_volume(dicom):
    dicom.ui.modalityKnownBox.checked = True
    other = add_volume("other")

    dicom.ui.volumeSelector.setCurrentNode(other)

    assert not dicom.ui.modalityKnownBox.checked and not is_shown(dicom.ui.modalityKnownBox)
    dicom.ask()
    assert "history" not in dicom.server.asked[-1]


@pytest.mark.parametrize(
    ("tag", "value"),
    [("0008,0060", "Doe^Jane"), ("0018,0015", "Jane Doe, 4.3.1950"), ("0010,1010", "old")],
)
def test_a_free_text_in_the_header_is_not_offered(dicom, monkeypatch, tag, value):
    from RadFoundLib.scene.known import known_about

    monkeypatch.setitem(HEADER, tag, value)

    assert value.lower() not in str(known_about(dicom.volume)).lower()


@pytest.mark.parametrize(
    ("age", "group"), [("005Y", "under 18 years"), ("018M", "under 18 years"), ("018Y", "18 to 19 years"),
                       ("089Y", "80 to 89 years"), ("101Y", "90 years or older")],
)  # fmt: skip
def test_an_age_is_a_group(dicom, monkeypatch, age, group):
    from RadFoundLib.scene.known import known_about

    monkeypatch.setitem(HEADER, "0010,1010", age)

    assert known_about(dicom.volume)["age"] == group
