"""What a running Slicer puts around a scripted module."""

import importlib
import os
import sys
import types
import typing
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import slicer
import slicer.util
from PySide6 import QtCore
from vtk.util import numpy_support

from . import mrml, pythonqt, widgets

MODULE_FOLDER = Path(__file__).parents[3] / "slicer_extension" / "RadFound"
_OWN = ("qt", "ctk", "SampleData", "SegmentStatistics", "RadFound", "RadFoundLib")


class Application:
    """Stands for `slicer.app`."""

    applicationName = "Slicer"

    def __init__(self, folder):
        self.temporaryPath = str(folder / "temporary")
        os.makedirs(self.temporaryPath, exist_ok=True)
        self.slicerUserSettingsFilePath = str(folder / "settings" / "Slicer.ini")
        self._started = []
        self.translated = set()

    def connect(self, signature, function):
        assert signature == "startupCompleted()"
        self._started.append(function)

    def complete_startup(self):
        for function in self._started:
            function()

    def processEvents(self):
        pythonqt.application().processEvents()

    def clipboard(self):
        return pythonqt.application().clipboard()

    def layoutManager(self):
        return None  # as in a Slicer without a main window

    def testingEnabled(self):
        return True  # no dialog is shown

    def palette(self):
        return pythonqt.application().palette()


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__
        slicer.selfTests = {self.moduleName: self.runTest}

    def runTest(self, **kwargs):
        module = importlib.import_module(type(self).__module__)
        getattr(module, self.moduleName + "Test")().runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__[: -len("Widget")]
        self.parent = parent
        self.layout = parent.layout()
        self.reloads = 0

    def resourcePath(self, name):
        return str(MODULE_FOLDER / "Resources" / name)

    def setup(self):
        pass

    def onReload(self):
        self.reloads += 1


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__[: -len("Logic")]

    def getParameterNode(self):
        kind = "vtkMRMLScriptedModuleNode"
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, kind)
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass(kind)
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetAttribute("ModuleName", self.moduleName)
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest:
    def delayDisplay(self, message, msec=100):
        slicer.app.processEvents()


def parameterNodeWrapper(wrapped):
    """Make the annotated names of a class properties that live in a parameter node."""
    # As Slicer does; on Python 3.9 this fails for `X | None`.
    for name, kind in typing.get_type_hints(wrapped).items():
        if isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
            setattr(wrapped, name, _node_property(name, kind))
        elif kind is str:
            setattr(wrapped, name, _text_property(name, getattr(wrapped, name, "")))
        else:
            raise TypeError(f"{name}: no serializer for {kind}")

    def __init__(self, node):
        self.parameterNode = node

    wrapped.__init__ = __init__
    wrapped.AddObserver = lambda self, *how: self.parameterNode.AddObserver(*how)
    wrapped.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)
    return wrapped


def _node_property(name, kind):
    def write(self, node):
        if node is not None and not isinstance(node, kind):
            raise ValueError(f"{name}: expected {kind.__name__}")
        self.parameterNode.SetParameter(name, "")
        self.parameterNode.SetNodeReferenceID(name, node.GetID() if node is not None else None)

    return property(lambda self: self.parameterNode.GetNodeReference(name), write)


def _text_property(name, default):
    def read(self):
        has_it = self.parameterNode.HasParameter(name)
        return self.parameterNode.GetParameter(name) if has_it else default

    def write(self, text):
        if not isinstance(text, str):
            raise ValueError(f"{name}: expected text")
        self.parameterNode.SetParameter(name, text)

    return property(read, write)


def _module(name, **content):
    module = types.ModuleType(name)
    module.__dict__.update(content)
    return module


def _sample_data():
    sources = []

    class SampleDataLogic:
        def downloadSample(self, name):
            """As Slicer does, take the first of the nodes that the downloader returns."""
            [source] = [source for source in sources if source.sampleName == name]
            nodes = source.customDownloader(source)
            return nodes[0]

        @staticmethod
        def registerCustomSampleDataSource(
            category="Custom",
            sampleName=None,
            uris=None,
            fileNames=None,
            nodeNames=None,
            customDownloader=None,
            thumbnailFileName=None,
            loadFileType="VolumeFile",
            loadFiles=None,
            loadFileProperties={},  # noqa: B006 - as Slicer has it
            checksums=None,
        ):
            given = dict(locals())
            # What Slicer's SampleDataSource makes of it would fail for anything but texts or lists.
            assert isinstance(uris, (str, list)) and isinstance(fileNames, (str, list))
            sources.append(SimpleNamespace(**given))

    return _module("SampleData", SampleDataLogic=SampleDataLogic, sources=sources)


def _segment_statistics():
    """Slicer's module as far as it is used: voxels of a segment are counted here."""
    import numpy as np

    class SegmentStatisticsLogic:
        def __init__(self):
            self._node = slicer.vtkMRMLScriptedModuleNode()
            self._found = {}

        def getParameterNode(self):
            return self._node

        def computeStatistics(self):
            scene, node = slicer.mrmlScene, self._node
            segmentation = scene.GetNodeByID(node.GetParameter("Segmentation"))
            volume = scene.GetNodeByID(node.GetParameter("ScalarVolume"))
            values = slicer.util.arrayFromVolume(volume)
            for index in range(segmentation.GetSegmentation().GetNumberOfSegments()):
                segment = segmentation.GetSegmentation().GetNthSegmentID(index)
                image = slicer.vtkOrientedImageData()
                segmentation.GetBinaryLabelmapRepresentation(segment, image)
                low_i, high_i, low_j, high_j, low_k, high_k = image.GetExtent()
                scalars = image.GetPointData().GetScalars()
                if scalars is None or high_i < low_i:
                    continue
                shape = (high_k - low_k + 1, high_j - low_j + 1, high_i - low_i + 1)
                inside = numpy_support.vtk_to_numpy(scalars).reshape(shape) > 0
                part = values[low_k : high_k + 1, low_j : high_j + 1, low_i : high_i + 1][inside]
                self._found[segment, "LabelmapSegmentStatisticsPlugin.volume_cm3"] = (
                    len(part) * float(np.prod(volume.GetSpacing())) / 1000
                )
                name = "ScalarVolumeSegmentStatisticsPlugin."
                self._found[segment, name + "mean"] = float(part.mean())
                self._found[segment, name + "stdev"] = float(part.std())
                key = "LabelmapSegmentStatisticsPlugin.feret_diameter_mm"
                if node.GetParameter(key + ".enabled") == "True":
                    self._found[segment, key] = 12.5

        def getStatistics(self):
            return self._found

    return _module("SegmentStatistics", SegmentStatisticsLogic=SegmentStatisticsLogic)


@contextmanager
def running_slicer(folder):
    """Make `slicer`, `qt` and `ctk` what they are in a running Slicer, in a scene of its own.

    Gives a SimpleNamespace: `app`, and `open_module()`, which returns the module's widget in a
    window of its own, entered unless `enters` is false (a script may only ask for the widget).
    """
    pythonqt.application()
    before = {name: sys.modules.get(name) for name in list(sys.modules) if _is_own(name)}
    attributes = {
        name: getattr(slicer, name, None)
        for name in ("app", "modules", "mrmlScene", "i18n", "selfTests")
    }
    functions = {
        name: getattr(slicer.util, name) for name in ("loadVolume", "mainWindow", "getModuleWidget")
    }
    for name in before:
        del sys.modules[name]
    app = Application(folder)
    _install(app, folder)
    opened = []
    try:
        yield SimpleNamespace(app=app, open_module=lambda enters=True: _open_module(opened, enters))
    finally:
        for widget, window in opened:
            widget.cleanup()
            window.close()
            window.deleteLater()
        slicer.mrmlScene.Clear(True)
        for name in [name for name in sys.modules if _is_own(name)]:
            del sys.modules[name]
        sys.modules.update({name: module for name, module in before.items() if module})
        for name, value in attributes.items():
            setattr(slicer, name, value)
        for name, value in functions.items():
            setattr(slicer.util, name, value)


def _is_own(name):
    return name.split(".")[0] in _OWN or name in (
        "slicer.i18n",
        "slicer.ScriptedLoadableModule",
        "slicer.parameterNodeWrapper",
    )


def _install(app, folder):
    slicer.app = app
    slicer.modules = SimpleNamespace()
    mrml.new_scene()

    def translate(context, text):
        app.translated.add((context, text))
        return text

    slicer.i18n = _module("slicer.i18n", tr=lambda text: text, translate=translate)
    scripted = _module(
        "slicer.ScriptedLoadableModule",
        ScriptedLoadableModule=ScriptedLoadableModule,
        ScriptedLoadableModuleLogic=ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest=ScriptedLoadableModuleTest,
        ScriptedLoadableModuleWidget=ScriptedLoadableModuleWidget,
    )
    wrapper = _module("slicer.parameterNodeWrapper", parameterNodeWrapper=parameterNodeWrapper)
    qt = pythonqt.Qt("qt")
    qt.QUiLoader = widgets.QUiLoader
    ctk = _module("ctk")
    for name, kind in widgets.CUSTOM.items():
        setattr(ctk if name.startswith("ctk") else slicer, name, pythonqt.proxy_class(kind))
    for module in (slicer.i18n, scripted, wrapper, qt, ctk, _sample_data(), _segment_statistics()):
        sys.modules[module.__name__] = module
    slicer.util.loadVolume = mrml.load_volume
    slicer.util.mainWindow = lambda: None
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
    QtCore.QSettings.setPath(
        QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, str(folder)
    )
    QtCore.QCoreApplication.setOrganizationName("NA-MIC")
    QtCore.QCoreApplication.setApplicationName("Slicer")
    if str(MODULE_FOLDER) not in sys.path:
        sys.path.insert(0, str(MODULE_FOLDER))


def _open_module(opened, enters):
    import RadFound
    from PySide6 import QtWidgets

    window = QtWidgets.QWidget()
    window.setWindowTitle("RadFound")
    QtWidgets.QVBoxLayout(window).setContentsMargins(6, 6, 6, 6)
    RadFound.RadFound(SimpleNamespace(path=str(MODULE_FOLDER / "RadFound.py")))
    slicer.app.complete_startup()
    widget = RadFound.RadFoundWidget(pythonqt.wrap(window))
    widget.setup()
    if enters:
        widget.enter()
    slicer.util.getModuleWidget = lambda name: widget
    opened.append((widget, window))
    window.show()
    return widget
