"""Stand-ins for those widgets of Slicer and CTK that the panel uses.

Public names are those of the real classes, no others; `test_names.py` compares them with the facts.
Signals that carry what only C++ knows are listed under their real signatures in SIGNALS.
"""

import slicer
from PySide6 import QtCore, QtUiTools, QtWidgets
from PySide6.QtCore import Property, Signal

from . import pythonqt

_HEADER = 26
_WANTED = "visibilityToParent"


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A bar with a title; what lies in it can be folded away."""

    contentsCollapsed = Signal(bool)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._text, self._collapsed, self._forcing = "", False, False
        self.setContentsMargins(0, self._header, 0, 0)
        self.setFocusPolicy(QtCore.Qt.FocusPolicy.TabFocus)

    @property
    def _header(self):
        """Height of the title, which grows with its text."""
        return max(_HEADER, self.fontMetrics().height() + 8)

    def minimumSizeHint(self):
        """As wide as the title, as CTK has it: a long one widens the panel."""
        flags = QtCore.Qt.TextFlag.TextShowMnemonic
        width = self.fontMetrics().size(flags, self._text).width() + 26
        return super().minimumSizeHint().expandedTo(QtCore.QSize(width, self._header))

    def _get_text(self):
        return self._text

    def _set_text(self, text):
        self._text = text
        self.updateGeometry()
        self.update()

    def _get_collapsed(self):
        return self._collapsed

    def _set_collapsed(self, collapsed):
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        self._forcing = True
        for child in self._children():
            self._set_child(child)
        self._forcing = False
        self.setMaximumHeight(self._header if collapsed else 16777215)
        self.update()
        self.contentsCollapsed.emit(collapsed)

    def _children(self):
        only_direct = QtCore.Qt.FindChildOption.FindDirectChildrenOnly
        return self.findChildren(QtWidgets.QWidget, options=only_direct)

    def childEvent(self, event):
        if event.type() == QtCore.QEvent.Type.ChildAdded and event.child().isWidgetType():
            event.child().installEventFilter(self)
        super().childEvent(event)

    def eventFilter(self, child, event):
        """Remember what is wanted of a child while the section is folded."""
        kind = QtCore.QEvent.Type
        if event.type() in (kind.ShowToParent, kind.HideToParent) and not self._forcing:
            child.setProperty(_WANTED, event.type() == kind.ShowToParent)
            if self._collapsed and event.type() == kind.ShowToParent:
                self._forcing = True
                self._set_child(child)
                self._forcing = False
        return False

    def _set_child(self, child):
        is_wanted = child.property(_WANTED) is not False
        child.setVisible(is_wanted and not self._collapsed)
        if is_wanted:
            # As CTK does: hiding it while it is folded away must be heard.
            child.setAttribute(QtCore.Qt.WidgetAttribute.WA_WState_ExplicitShowHide, False)

    text = Property(str, _get_text, _set_text)
    collapsed = Property(bool, _get_collapsed, _set_collapsed)

    def mousePressEvent(self, event):
        if event.position().y() < self._header:
            self._set_collapsed(not self._collapsed)

    def paintEvent(self, _event):
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width(), self._header - 4)
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(6, self._header // 2 - 7, 10, 10)
        element = QtWidgets.QStyle.PrimitiveElement
        painter.drawPrimitive(
            element.PE_IndicatorArrowRight if self._collapsed else element.PE_IndicatorArrowDown,
            arrow,
        )
        painter.drawText(22, 0, self.width() - 26, self._header - 4, _TITLE, self._text)


_TITLE = int(QtCore.Qt.AlignmentFlag.AlignVCenter | QtCore.Qt.AlignmentFlag.AlignLeft)
_TITLE |= int(QtCore.Qt.TextFlag.TextShowMnemonic)


class ctkComboBox(QtWidgets.QComboBox):
    """A combo box that may leave the mouse wheel to the panel around it."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._effect = 1  # AlwaysScroll

    scrollWheelEffect = Property(
        int, lambda self: self._effect, lambda self, effect: setattr(self, "_effect", effect)
    )

    def wheelEvent(self, event):
        if self._effect == 0:  # NeverScroll
            event.ignore()
        else:
            super().wheelEvent(event)


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider with a number beside it."""

    valueChanged = Signal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self._box = QtWidgets.QDoubleSpinBox()
        self._box.setMaximum(100.0)
        layout.addWidget(self._slider, 1)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self._changed)
        self._slider.valueChanged.connect(lambda step: self._box.setValue(step / 100))

    def _changed(self, value):
        self._slider.setRange(round(self._box.minimum() * 100), round(self._box.maximum() * 100))
        self._slider.setValue(round(value * 100))
        self.valueChanged.emit(value)

    value = Property(float, lambda self: self._box.value(), lambda self, x: self._box.setValue(x))
    minimum = Property(
        float, lambda self: self._box.minimum(), lambda self, x: self._box.setMinimum(x)
    )
    maximum = Property(
        float, lambda self: self._box.maximum(), lambda self, x: self._box.setMaximum(x)
    )
    singleStep = Property(
        float, lambda self: self._box.singleStep(), lambda self, x: self._box.setSingleStep(x)
    )
    decimals = Property(
        int, lambda self: self._box.decimals(), lambda self, x: self._box.setDecimals(x)
    )


class qMRMLWidget(QtWidgets.QWidget):
    """A widget that knows a scene."""

    def setMRMLScene(self, scene):
        self._scene = scene


class _NodeList:
    """Which nodes of the scene a selector offers; calls back whenever that changes."""

    def __init__(self, changed):
        self.scene, self.types, self.shows_hidden, self.hidden_types = None, [], False, []
        self._changed, self._tags = changed, []

    def watch(self, scene):
        for tag in self._tags:
            self.scene.RemoveObserver(tag)
        self.scene, self._tags = scene, []
        if scene is not None:
            for event in ("NodeAddedEvent", "NodeRemovedEvent"):
                number = getattr(slicer.vtkMRMLScene, event)
                self._tags.append(scene.AddObserver(number, self._on_node))
            # As in Slicer, a selector looks again at the end of an import or of closing, before
            # observers that were added after it.
            for event in ("EndImportEvent", "EndCloseEvent"):
                number = getattr(slicer.vtkMRMLScene, event)
                self._tags.append(scene.AddObserver(number, lambda *_: self._changed()))
        self._changed()

    def _on_node(self, *_):
        if not self.scene.IsBatchProcessing():
            self._changed()

    def nodes(self):
        found = []
        for index in range(self.scene.GetNumberOfNodes() if self.scene is not None else 0):
            node = self.scene.GetNthNode(index)
            is_wanted = any(node.IsA(each) for each in self.types)
            is_wanted &= not any(node.IsA(each) for each in self.hidden_types)
            if is_wanted and (self.shows_hidden or not node.GetHideFromEditors()):
                found.append(node)
        return found


def _may_be_narrow(combo):
    policy = QtWidgets.QSizePolicy.Policy
    combo.setSizePolicy(policy.Expanding, policy.Fixed)
    adjust = QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    combo.setSizeAdjustPolicy(adjust)
    combo.setMinimumContentsLength(12)


def _flag(name):
    return Property(
        bool,
        lambda self: self._flags[name],
        lambda self, value: self._flags.__setitem__(name, value),
    )


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Lets the user choose a node of the scene."""

    currentNodeChanged = Signal(object)
    nodeAddedByUser = Signal(object)
    SIGNALS = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
    }

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._combo = QtWidgets.QComboBox()
        _may_be_narrow(self._combo)
        layout.addWidget(self._combo)
        self._list = _NodeList(self._fill)
        self._current, self._none, self._none_text = None, False, "None"
        self._flags = dict.fromkeys(
            ("addEnabled", "removeEnabled", "renameEnabled", "editEnabled"), True
        )
        self._base_name = ""
        self._combo.activated.connect(self._chosen)

    def _fill(self):
        nodes = self._list.nodes()
        if self._current is not None and self._current not in nodes:
            self._current = None
            gone = True
        else:
            gone = False
        if self._current is None and nodes and not self._none:
            self._current = nodes[0]
            gone = True
        self._combo.clear()
        for node in ([None] if self._none or not nodes else []) + nodes:
            self._combo.addItem(self._none_text if node is None else node.GetName(), node)
            if node is self._current:
                self._combo.setCurrentIndex(self._combo.count() - 1)
        if gone:
            self.currentNodeChanged.emit(self._current)

    def _chosen(self, index):
        self.setCurrentNode(self._combo.itemData(index))

    def setMRMLScene(self, scene):
        self._list.watch(scene)

    def currentNode(self):
        return self._current

    def setCurrentNode(self, node):
        if node is not None and node not in self._list.nodes():
            node = None
        if node is not self._current:
            self._current = node
            self._fill()
            self.currentNodeChanged.emit(self._current)

    def addNode(self):
        node = slicer.mrmlScene.AddNewNodeByClass(self._list.types[0], self._base_name or "node")
        self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def _set_types(self, types):
        self._list.types = list(types)
        self._fill()

    def _set_hidden_types(self, types):
        self._list.hidden_types = list(types)
        self._fill()

    def _set_none(self, enabled):
        self._none = enabled
        self._fill()

    def _set_none_text(self, text):
        self._none_text = text
        self._fill()

    nodeTypes = Property("QStringList", lambda self: self._list.types, _set_types)
    hideChildNodeTypes = Property(
        "QStringList", lambda self: self._list.hidden_types, _set_hidden_types
    )
    addEnabled = _flag("addEnabled")
    removeEnabled = _flag("removeEnabled")
    renameEnabled = _flag("renameEnabled")
    editEnabled = _flag("editEnabled")
    noneEnabled = Property(bool, lambda self: self._none, _set_none)
    noneDisplay = Property(str, lambda self: self._none_text, _set_none_text)
    baseName = Property(
        str, lambda self: self._base_name, lambda self, name: setattr(self, "_base_name", name)
    )
    showHidden = Property(
        bool,
        lambda self: self._list.shows_hidden,
        lambda self, shown: setattr(self._list, "shows_hidden", shown),
    )


class qMRMLCheckableNodeComboBox(QtWidgets.QComboBox):
    """Lets the user tick some of the scene's nodes."""

    checkedNodesChanged = Signal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self._list = _NodeList(self._fill)
        self._checked = []
        _may_be_narrow(self)

    def _fill(self):
        nodes = self._list.nodes()
        before = list(self._checked)
        self._checked = [node for node in before if node in nodes]
        self.clear()
        names = ", ".join(node.GetName() for node in self._checked)
        self.addItem(names or "None")
        if before != self._checked:
            self.checkedNodesChanged.emit()

    def setMRMLScene(self, scene):
        self._list.watch(scene)

    def checkedNodes(self):
        return tuple(self._checked)

    def setCheckState(self, node, state):
        is_checked = state == QtCore.Qt.CheckState.Checked
        if is_checked != (node in self._checked):
            if is_checked:
                self._checked.append(node)
            else:
                self._checked.remove(node)
            self._fill()
            self.checkedNodesChanged.emit()

    def _set_types(self, types):
        self._list.types = list(types)
        self._fill()

    def _set_hidden_types(self, types):
        self._list.hidden_types = list(types)
        self._fill()

    nodeTypes = Property("QStringList", lambda self: self._list.types, _set_types)
    hideChildNodeTypes = Property(
        "QStringList", lambda self: self._list.hidden_types, _set_hidden_types
    )


CUSTOM = {
    each.__name__: each
    for each in (
        ctkCollapsibleButton,
        ctkComboBox,
        ctkSliderWidget,
        qMRMLCheckableNodeComboBox,
        qMRMLNodeComboBox,
        qMRMLWidget,
    )
}


class _Loader(QtUiTools.QUiLoader):
    """Makes Slicer's widgets where a .ui file asks for them."""

    def createWidget(self, class_name, parent=None, name=""):
        if class_name in CUSTOM:
            widget = CUSTOM[class_name](parent)
            widget.setObjectName(name)
            return widget
        return super().createWidget(class_name, parent, name)


class QUiLoader:
    """Slicer's loader of .ui files, as `slicer.util.loadUI` uses it."""

    def load(self, file):
        loader = _Loader()
        self._kept = loader
        widget = loader.load(pythonqt.unwrap(file))
        if widget is None:
            raise RuntimeError(loader.errorString())
        return pythonqt.wrap(widget)
