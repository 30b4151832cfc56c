"""The RadFound module of 3D Slicer: ask a vision-language model about the volume on the screen."""

import os
import sys

import slicer
import vtk
from RadFoundLib.session.outbox import Outbox
from RadFoundLib.session.session import Session
from RadFoundLib.translation import use_translator
from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class RadFound(ScriptedLoadableModule):
    """The module's title, category and help text."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "RadFound"
        parent.categories = [
            translate("qSlicerAbstractCoreModule", category)
            for category in ("Active Learning", "Informatics")
        ]
        parent.dependencies = []
        parent.contributors = ["RadFound contributors (github.com/RadFound/RadFound)"]
        parent.helpText = _(
            "Ask questions about a volume, generate captions and reports, correct the "
            "answers and fine-tune the model on the corrections. The module needs a RadFound "
            "server; images are sent to it only after you have agreed. Not for diagnosis."
        )
        parent.helpText += '<p><a href="{address}">{words}</a></p>'.format(
            address="https://github.com/RadFound/RadFound/blob/main/docs/slicer.md",
            words=_("Tutorial and documentation"),
        )
        parent.acknowledgementText = _(
            "An independent implementation of RadFound (arXiv 2409.16183) for MONAI Label."
        )
        slicer.app.connect("startupCompleted()", register_sample_data)


def register_sample_data():
    """Register the phantom in Slicer's module Sample Data; nothing is downloaded."""
    import SampleData

    icons = os.path.join(os.path.dirname(__file__), "Resources", "Icons")
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="RadFound",
        sampleName="RadFoundPhantom",
        uris="",
        fileNames="",
        nodeNames="RadFoundPhantom",
        thumbnailFileName=os.path.join(icons, "RadFoundPhantom.png"),
        customDownloader=download_phantom,
    )


def download_phantom(_source):
    """Return the nodes of the sample, as Slicer's module Sample Data expects."""
    return [make_phantom()]


def make_phantom():
    """Add a synthetic chest CT to the scene, and return its node."""
    from RadFoundLib.scene.phantom import chest_phantom

    voxels, affine = chest_phantom()
    volume = slicer.util.addVolumeFromArray(voxels, affine, "RadFoundPhantom")
    display = volume.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(1500, -400)
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return volume


@parameterNodeWrapper
class RadFoundParameterNode:
    """State that is saved with the scene: no address, no token and no text.

    Parameters
    ----------
    volume : vtkMRMLScalarVolumeNode
        The volume that questions are about.
    part : str
        "whole", "slice:Red" (or another view) or "region".
    roi : vtkMRMLNode
        The region if part is "region".
    """

    volume: vtkMRMLScalarVolumeNode
    part: str = "whole"
    roi: vtkMRMLNode


class RadFoundLogic(ScriptedLoadableModuleLogic):
    """The session of the module; independent of the panel."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        folder = os.path.dirname(slicer.app.slicerUserSettingsFilePath)
        self.session = Session(Outbox(os.path.join(folder, "RadFound", "Corrections")))

    def getParameterNode(self):
        """Return the state that is saved with the scene."""
        return RadFoundParameterNode(super().getParameterNode())


class RadFoundWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Connect the panel to Slicer's scene and module life cycle."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None
        self._parameters = None
        self._is_updating = False
        self._is_open = False

    def setup(self):
        """Create the panel; called once, when the module is first opened."""
        from RadFoundLib.panel.panel import Panel

        ScriptedLoadableModuleWidget.setup(self)
        use_translator(translate)
        widget = slicer.util.loadUI(self.resourcePath("UI/RadFound.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = RadFoundLogic()
        self.panel = Panel(self.ui, self.logic.session, self.resourcePath(""))
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._on_scene_closing)
        self.addObserver(scene, scene.StartImportEvent, self._on_import_starting)
        # After the selectors, which choose a node of their own at these events.
        for event in (scene.EndCloseEvent, scene.EndImportEvent):
            self.addObserver(scene, event, self._on_scene_changed, priority=-1.0)
        self.addObserver(scene, scene.NodeRemovedEvent, self._on_node_removed)
        self.ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._save_parameters)
        self.ui.roiSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._save_parameters)
        self.ui.partBox.connect("currentIndexChanged(int)", self._save_parameters)

    def enter(self):
        """Update the panel from the scene; called whenever the module is opened."""
        self._is_open = True
        self.panel.keys.enable(True)
        self._use_parameters()
        self.panel.tell("study")

    def exit(self):
        """Leave the scene alone while another module is open; a request continues."""
        self._is_open = False
        self.panel.keys.enable(False)
        self._drop_parameters()

    def onReload(self):
        """Reload the module and its package; for developers."""
        for name in [name for name in sys.modules if name.split(".")[0] == "RadFoundLib"]:
            del sys.modules[name]
        super().onReload()

    def cleanup(self):
        """Stop all jobs; called when Slicer exits or the module is reloaded."""
        self.removeObservers()
        if self.panel is not None:
            self.panel.close()

    # Scene ------------------------------------------------------------------------------------

    def _on_scene_closing(self, _caller, _event):
        self._drop_parameters()
        self.panel.set_volumes(None, ())
        self.panel.forget_nodes()

    def _on_import_starting(self, _caller, _event):
        # What the selectors choose during the import must not replace the imported choice.
        self._drop_parameters()

    def _on_scene_changed(self, _caller, _event):
        if self._is_open:
            self._use_parameters()

    def _on_node_removed(self, _caller, _event):
        if self.panel.volume is not None and self.panel.volume.GetScene() is None:
            self.panel.set_volumes(self.ui.volumeSelector.currentNode(), ())
        self.panel.tell("study")

    # Parameter node ---------------------------------------------------------------------------

    def _drop_parameters(self):
        if self._parameters is not None:
            self.removeObserver(
                self._parameters, vtk.vtkCommand.ModifiedEvent, self._show_parameters
            )
            self._parameters = None

    def _use_parameters(self):
        """Observe the scene's parameter node; save the panel's choices into a new scene."""
        self._drop_parameters()
        self._parameters = self.logic.getParameterNode()
        self.addObserver(self._parameters, vtk.vtkCommand.ModifiedEvent, self._show_parameters)
        if self._parameters.volume is None and self.ui.volumeSelector.currentNode() is not None:
            self._save_parameters()
        self._show_parameters()

    def _show_parameters(self, _caller=None, _event=None):
        if self._parameters is None or self._is_updating:
            return
        self._is_updating = True
        try:
            self.ui.volumeSelector.setCurrentNode(self._parameters.volume)
            self.ui.roiSelector.setCurrentNode(self._parameters.roi)
            self.panel.study_section.set_part(self._parameters.part)
        finally:
            self._is_updating = False
        self.panel.set_volumes(
            self.ui.volumeSelector.currentNode(), self.ui.viewsSelector.checkedNodes()
        )

    def _save_parameters(self, _value=None):
        if self._parameters is None or self._is_updating:
            return
        self._is_updating = True
        try:
            self._parameters.volume = self.ui.volumeSelector.currentNode()
            self._parameters.roi = self.ui.roiSelector.currentNode()
            self._parameters.part = self.panel.study_section.part
        finally:
            self._is_updating = False


class RadFoundTest(ScriptedLoadableModuleTest):
    """Self test of the whole workflow against a stub server; run by "Reload and Test"."""

    def setUp(self):
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run the self test."""
        self.setUp()
        self.test_path()

    def test_path(self):
        """Connect, agree, ask, correct, teach, and lose the server."""
        from RadFoundLib.selftest.selftest import run

        self.delayDisplay(_("Starting the self test"))
        run(slicer.util.getModuleWidget("RadFound"), make_phantom)
        self.delayDisplay(_("The self test passed"))
