"""Scenes that are loaded, imported and closed, and the study that questions are then about."""

import slicer
import slicer.util

from .desk import Desk, add_volume


def parameter_nodes():
    nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
    return [node for node in nodes if node.GetAttribute("ModuleName") == "RadFound"]


def saved_scene():
    slicer.mrmlScene.SetSaveToXMLString(1)
    slicer.mrmlScene.Commit()
    return slicer.mrmlScene.GetSceneXMLString()


def import_scene(text):
    slicer.mrmlScene.SetLoadFromXMLString(1)
    slicer.mrmlScene.SetSceneXMLString(text)
    slicer.mrmlScene.Import()


def load_scene(text):
    slicer.mrmlScene.Clear()
    import_scene(text)


def choose_region(desk):
    desk.ui.partBox.currentIndex = desk.ui.partBox.findData("region")
    roi = desk.ui.roiSelector.addNode()
    roi.SetName("lesion")
    roi.SetCenter(1, 2, 3)
    roi.SetSize(4, 4, 4)


def test_a_loaded_scene_keeps_its_volume_and_its_region(desk):
    second = add_volume("second")
    desk.ui.volumeSelector.setCurrentNode(second)
    choose_region(desk)
    text = saved_scene()

    load_scene(text)

    assert desk.panel.volume.GetName() == "second"
    assert desk.ui.volumeSelector.currentNode().GetName() == "second"
    assert desk.panel.study_section.part == "region"
    assert desk.ui.roiSelector.currentNode().GetName() == "lesion"
    [node] = parameter_nodes()
    assert node.GetNodeReference("volume").GetName() == "second"
    assert node.GetNodeReference("roi").GetName() == "lesion"


def test_an_imported_scene_brings_its_choice_beside_the_volumes_that_are_there(desk):
    second = add_volume("second")
    desk.ui.volumeSelector.setCurrentNode(second)
    choose_region(desk)
    text = saved_scene()
    slicer.mrmlScene.Clear()
    here = add_volume("here")
    assert desk.panel.volume is here

    import_scene(text)

    assert desk.panel.volume.GetName() == "second"
    assert desk.ui.roiSelector.currentNode().GetName() == "lesion"


def test_an_imported_scene_without_a_choice_changes_none(desk):
    slicer.mrmlScene.RemoveNode(parameter_nodes()[0])
    desk.widget.exit()
    text = saved_scene()
    slicer.mrmlScene.Clear()
    desk.widget.enter()
    first, here = add_volume("first"), add_volume("here")
    desk.ui.volumeSelector.setCurrentNode(here)

    import_scene(text)

    assert desk.panel.volume is here
    assert parameter_nodes()[0].GetNodeReference("volume") is here
    assert first is not here


def test_the_panel_names_the_study_whenever_it_changes(desk):
    assert desk.ui.askSection.text == "Ask about CT"
    text = saved_scene()
    other = add_volume("other")
    desk.ui.volumeSelector.setCurrentNode(other)
    assert desk.ui.askSection.text == "Ask about other"
    assert desk.ui.askMessage.text == "Questions are now about other."

    import_scene(text)

    assert desk.panel.volume.GetName() == "CT"
    assert desk.ui.askSection.text == "Ask about CT"
    assert desk.ui.askMessage.text == "Questions are now about CT."


def test_a_module_that_was_never_opened_leaves_no_trace_in_a_scene(running):
    widget = running.open_module(enters=False)
    add_volume("one")
    assert parameter_nodes() == []
    slicer.mrmlScene.Clear()
    add_volume("another")
    import_scene(saved_scene())
    assert parameter_nodes() == []

    widget.enter()

    [node] = parameter_nodes()
    assert node.GetNodeReference("volume") is widget.panel.volume


def test_a_module_that_was_left_does_not_write_into_the_next_scene(desk):
    desk.widget.exit()
    slicer.mrmlScene.Clear()
    add_volume("another")

    assert [node.GetNodeReference("volume") for node in parameter_nodes()] in ([], [None])


def test_a_sample_is_loaded_by_script(module):
    import SampleData

    volume = SampleData.SampleDataLogic().downloadSample("RadFoundPhantom")

    assert volume.GetName() == "RadFoundPhantom"
    assert Desk(module, None).panel.volume is volume
