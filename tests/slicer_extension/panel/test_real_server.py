"""The panel against the project's own server, with a model that knows nothing."""

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from RadFoundLib.scene import scene

from ...monailabel_app.conftest import (
    CT,
    PICTURE,
    SERIES,
    VOLUME,
    fill_with_studies,
    running_server,
)
from .desk import Desk, add_volume


def ijk_to_ras(node):
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


@pytest.fixture(scope="module")
def real_server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    studies = folder / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    (studies / f"{PICTURE}.png").unlink()  # Slicer reads it, but not the part of it that is here
    with running_server(studies, folder / "server.log") as server:
        yield server


@pytest.fixture
def desk(module, real_server):
    desk = Desk(module, real_server)
    desk.volume = add_volume(shape=(8, 24, 32))
    desk.connect()
    desk.ui.consentBox.checked = True
    desk.ui.authorEdit.text = "A. Reader"
    return desk


def test_a_reader_asks_corrects_and_teaches(desk):
    ui = desk.ui
    assert ui.stateLabel.text == "connected: radfound-tiny"
    turn = desk.ask("Which side is shown?")
    assert turn.state == "answered", turn.error
    assert "radfound-tiny" in desk.shown

    ui.correctionEdit.plainText = "left"
    ui.editButton.click()
    desk.settle()
    assert ui.waitingText.text == ""
    assert ui.correctionsTable.rowCount == 1
    assert ui.newText.text == "Corrections to learn from: 1."

    ui.trainButton.click()
    desk.until(lambda: desk.session.is_training)
    desk.until(lambda: not desk.session.is_training, patience_s=600)
    desk.settle()
    assert desk.session.training.state in ("published", "refused"), ui.trainingText.text
    assert "checks" in ui.trainingText.text
    if desk.session.training.state == "published":
        assert ui.newText.text.endswith(", 0 new since the last training.")
        ui.rollBackButton.click()
        desk.until(lambda: desk.session.adapters["active"] is None)


def test_an_answer_of_the_real_server_is_stopped(desk):
    desk.ui.reportButton.click()
    turn = desk.panel.conversation.turns[-1]
    desk.until(lambda: turn.text or not turn.is_open)
    desk.ui.stopButton.click()
    desk.settle()

    assert turn.state in ("stopped", "answered")
    assert desk.ask("And now?").state == "answered"


def test_a_correction_may_say_where_in_the_volume(desk):
    desk.ask("Is there a lesion?")
    desk.ui.whereSelector.addNode()

    desk.ui.rejectButton.click()
    desk.settle()

    assert desk.ui.waitingText.text == ""
    assert set(desk.session.corrections[-1]["region"]) == {"box_mm"}


def test_evidence_of_the_real_server_lies_on_the_volume(desk):
    assert desk.ask("Is there a lesion?").state == "answered"
    desk.ui.evidenceButton.click()
    desk.settle()

    node = scene.evidence_node()
    assert node is not None, desk.ui.evidenceText.text
    assert desk.ui.evidenceText.text.startswith("The brighter a place")
    assert node.GetImageData().GetDimensions() == desk.volume.GetImageData().GetDimensions()
    assert np.allclose(ijk_to_ras(node), ijk_to_ras(desk.volume))
    values = slicer.util.arrayFromVolume(node)
    assert values.max() > values.min()
    assert scene.jump_to_strongest(node) is not None
    desk.ui.removeEvidenceButton.click()
    assert scene.evidence_node() is None


def test_every_study_of_the_server_opens_in_slicer(desk):
    """By chance, which prefers what was not offered lately."""
    desk.ui.strategyBox.currentIndex = desk.ui.strategyBox.findData("random")
    offered = {}
    while not {VOLUME, CT, SERIES} <= set(offered):
        desk.ui.nextButton.click()
        desk.settle()
        volume = desk.panel.volume
        offered[volume.GetName()] = volume.GetImageData().GetDimensions()
        assert desk.ui.nextText.text.startswith(f"{volume.GetName()}: at random")
        assert desk.ask().state == "answered"
        assert len(offered) < 12

    assert offered[VOLUME] == (24, 20, 16)
    assert offered[SERIES][2] == 2
