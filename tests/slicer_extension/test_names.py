"""The extension uses no name of Slicer, Qt or CTK that is not known to be there.

Known are the MRML library and `slicer.util` (the real ones are at hand), the widgets' properties,
signals and slots as read off their headers, Qt's own as Qt tells them, and those of names.json.
"""

import ast
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import slicer
import slicer.util
import vtk
import vtk.util.numpy_support

from .standin import pythonqt, widgets

ROOT = Path(__file__).parents[2] / "slicer_extension"
FACTS = Path(__file__).parent / "facts"
SLICER_WIDGETS = json.loads((FACTS / "slicer_widgets.json").read_text(encoding="utf-8"))
NAMES = json.loads((FACTS / "names.json").read_text(encoding="utf-8"))
# Of the real `slicer.util`, what Slicer 5.8 lacks.
NOT_IN_5_8 = {"executePythonModule", "LazyImport"}
PARENTS = {
    "qMRMLCheckableNodeComboBox": "qMRMLNodeComboBox",
    "ctkCollapsibleButton": "QAbstractButton",
    "ctkComboBox": "QComboBox",
}
SOURCES = sorted(ROOT.rglob("*.py"))
UI = ElementTree.parse(ROOT / "RadFound" / "Resources" / "UI" / "RadFound.ui")
WIDGETS = {each.get("name"): each.get("class") for each in UI.iter("widget")}


def trees():
    for path in SOURCES:
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def chain(node):
    """Return ["slicer", "app", "palette"] for `slicer.app.palette`; None for anything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        return [node.id, *parts][:1] + parts[::-1]
    return None


def chains(root):
    """Return every use of a module's names, longest first, with where it is."""
    found = {}
    for path, tree in trees():
        inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and id(node) not in inner:
                parts = chain(node)
                if parts and parts[0] == root:
                    found.setdefault(".".join(parts[1:]), f"{path.name}:{node.lineno}")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == root:
                prefix = (node.module or "").split(".")[1:]
                for alias in node.names:
                    found.setdefault(".".join([*prefix, alias.name]), f"{path.name}:{node.lineno}")
    return found


def is_in_slicer(name):
    head, _, rest = name.partition(".")
    if name in NAMES["slicer"]:
        return True
    if head == "app":
        member = rest.split(".")[0]
        return member in NAMES["slicer.app"] or any(
            member in SLICER_WIDGETS[kind][part]
            for kind in ("qSlicerApplication", "qSlicerCoreApplication")
            for part in ("properties", "slots", "invokable")
        )
    if head == "util":
        member = rest.split(".")[0]
        return hasattr(slicer.util, member) and member not in NOT_IN_5_8
    if head == "mrmlScene":
        return hasattr(slicer.vtkMRMLScene, rest.split(".")[0])
    if head.startswith("vtkMRML"):
        kind = getattr(slicer, head, None)
        return kind is not None and (not rest or hasattr(kind, rest.split(".")[0]))
    return False


def test_names_of_slicer():
    unknown = {name: place for name, place in chains("slicer").items() if not is_in_slicer(name)}

    assert not unknown
    assert len(chains("slicer")) > 20


def test_names_of_qt():
    used = chains("qt")

    assert set(used) == set(NAMES["qt"])


def test_names_of_vtk():
    used = chains("vtk")

    assert {name: place for name, place in used.items() if not has(vtk, name)} == {}


def has(thing, name):
    for part in name.split("."):
        if not hasattr(thing, part):
            return False
        thing = getattr(thing, part)
    return True


def test_nothing_is_taken_from_ctk_in_python():
    assert not chains("ctk")


# Widgets of the panel


def ancestry(kind):
    while kind in SLICER_WIDGETS:
        yield kind
        kind = PARENTS.get(kind) or SLICER_WIDGETS[kind]["parent"] or "QWidget"
    yield kind


def qt_class(kind):
    """Return Qt's own class at the root of a widget's class."""
    *_, last = ancestry(kind)
    return pythonqt.unwrap(getattr(pythonqt.qt, last))


def qt_properties(kind):
    meta = qt_class(kind).staticMetaObject
    return {meta.property(index).name() for index in range(meta.propertyCount())}


def knows(kind, member):
    for each in ancestry(kind):
        facts = SLICER_WIDGETS.get(each)
        if facts is not None and any(
            member in facts[part] for part in ("properties", "slots", "invokable")
        ):
            return True
    return member in qt_properties(kind) or hasattr(qt_class(kind), member)


def knows_signal(kind, signature):
    pythonqt.application()
    for each in ancestry(kind):
        facts = SLICER_WIDGETS.get(each)
        if facts is not None and signature in {plain(signal) for signal in facts["signals"]}:
            return True
    return qt_class(kind).staticMetaObject.indexOfSignal(signature) >= 0


def plain(signature):
    """Return `f(vtkMRMLNode*)` for `f(vtkMRMLNode* node)`, as Qt compares signatures."""
    name, _, inside = signature.rstrip(")").partition("(")
    arguments = []
    for argument in filter(None, inside.split(",")):
        argument = re.sub(r"\bconst\b|&|=.*", "", argument).replace(" *", "*").strip()
        arguments.append(re.sub(r"(?<=[\w*])\s+\w+$", "", argument))
    return f"{name}({','.join(arguments)})"


def uses_of_widgets():
    """Return (widget, member, place) for each use of a member of a widget of the .ui file."""
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                holder = chain(node.value)
                if holder and holder[-1] in WIDGETS and holder[-2] in ("ui", "_ui"):
                    yield holder[-1], node.attr, f"{path.name}:{node.lineno}"


def test_members_of_the_panels_widgets():
    unknown = [
        (WIDGETS[widget], member, place)
        for widget, member, place in uses_of_widgets()
        if not knows(WIDGETS[widget], member)
    ]

    assert not unknown
    assert len(list(uses_of_widgets())) > 100


def test_every_widget_that_is_used_is_in_the_ui_file():
    missing = {
        f"{path.name}:{node.lineno}": node.attr
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (chain(node) or [""])[-2:-1] in (["ui"], ["_ui"])
        and node.attr not in WIDGETS
    }

    assert not missing


def test_every_widget_of_the_ui_file_that_acts_is_used():
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    passive = ("QLabel", "QWidget", "QFrame", "ctkCollapsibleButton", "qMRMLWidget")
    acting = [name for name, kind in WIDGETS.items() if kind not in passive]

    assert [
        name for name in acting if name not in text and name[: -len("Button")] not in text
    ] == []


def test_signals_of_the_panels_widgets():
    checked, unknown = 0, []
    for path, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr != "connect" or not isinstance(node.args[0], ast.Constant):
                continue
            signature, owner = node.args[0].value, chain(node.func.value)
            if owner and owner[-1] in WIDGETS:
                checked += 1
                if not knows_signal(WIDGETS[owner[-1]], signature):
                    unknown.append((owner[-1], signature, f"{path.name}:{node.lineno}"))
    assert not unknown
    assert checked > 20


def test_properties_in_the_ui_file():
    unknown = [
        (widget.get("class"), prop.get("name"))
        for widget in UI.iter("widget")
        for prop in widget.findall("property")
        if prop.get("name") != "buddy" and not knows(widget.get("class"), prop.get("name"))
    ]

    assert not unknown


# The stand-in


@pytest.mark.parametrize("kind", widgets.CUSTOM.values(), ids=lambda kind: kind.__name__)
def test_a_stand_in_has_no_public_name_that_the_real_widget_lacks(kind):
    inherited = {name for parent in kind.__mro__[1:] for name in vars(parent)}
    own = {
        name
        for name in vars(kind)
        if not name.startswith("_") and name not in inherited | {"SIGNALS", "staticMetaObject"}
    }
    signals = {plain(each).split("(")[0] for each in SLICER_WIDGETS[kind.__name__]["signals"]}

    assert {name for name in own if name not in signals and not knows(kind.__name__, name)} == set()


@pytest.mark.parametrize("kind", widgets.CUSTOM.values(), ids=lambda kind: kind.__name__)
def test_a_stand_ins_signals_are_those_of_the_real_widget(kind):
    real = {plain(each) for each in SLICER_WIDGETS[kind.__name__]["signals"]}

    assert set(getattr(kind, "SIGNALS", {})) <= real


def test_the_check_itself_finds_what_is_not_there():
    assert not is_in_slicer("app.flyToTheMoon")
    assert not is_in_slicer("util.executePythonModule")
    assert not is_in_slicer("vtkMRMLNoSuchNode")
    assert not knows("qMRMLNodeComboBox", "noSuchProperty")
    assert not knows_signal("qMRMLNodeComboBox", "currentNodeChanged(QString)")
    assert knows_signal("qMRMLNodeComboBox", "currentNodeChanged(vtkMRMLNode*)")
    assert plain("valueChanged(double value)") == "valueChanged(double)"


# Texts


def test_what_the_reader_sees_goes_through_the_translator():
    """No sentence is put into a widget as it stands in the source."""
    loose = []
    for path, tree in trees():
        if "Testing" in path.parts or path.name in ("stub.py", "selftest.py"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
                if node.targets[0].attr in ("text", "toolTip", "placeholderText", "title"):
                    loose += [f"{path.name}:{each.lineno}" for each in bare_texts(node.value)]
    assert [place.split(":")[0] for place in loose] == ["RadFound.py"]  # the module's own name


def bare_texts(node):
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        inside = node.func.value if isinstance(node.func, ast.Attribute) else None
        return [] if name == "_" else (bare_texts(inside) if inside is not None else [])
    if isinstance(node, ast.Compare):
        return []
    if isinstance(node, ast.Constant):
        has_letters = isinstance(node.value, str) and re.search(r"[A-Za-z]{2}", node.value)
        return [node] if has_letters else []
    return [found for child in ast.iter_child_nodes(node) for found in bare_texts(child)]
