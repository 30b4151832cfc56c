"""PySide6 with the manners of PythonQt, Slicer's own binding of Qt.

A property is an attribute, an unknown name is an error, signals are connected by their signature.
`test_pythonqt.py` compares it with what the real PythonQt answered. Where PythonQt is lenient (it
drops arguments that a slot does not take), this is strict.
"""

import ctypes
import os
import sys
import traceback
import types

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtPrintSupport, QtUiTools, QtWidgets  # noqa: E402

_MODULES = (QtWidgets, QtGui, QtCore, QtUiTools, QtPrintSupport)
# Names of static methods, which hide the property of the same name.
_HIDDEN_PROPERTIES = {"singleShot"}

#: What went wrong in slots, where nobody hears an exception.
errors = []

_proxy_classes = {}


def application():
    """Return the one QApplication."""
    found = QtWidgets.QApplication.instance()
    if found is None:
        QtCore.qInstallMessageHandler(_say)
        found = QtWidgets.QApplication(["tests"])
        found.setStyle("Fusion")
        _keep_none()
    return found


def _keep_none():
    """Keep None alive before Python 3.12, where it is not immortal.

    Each PySide6 call without a result takes a reference to None that was not its own; after some
    ten thousand calls Python would abort ("none_dealloc").
    """
    if sys.version_info < (3, 12):
        ctypes.c_ssize_t.from_address(id(None)).value += 1 << 40


def _say(_kind, _where, text):
    """Pass on what Qt says, but for what its platform without a screen says of each window."""
    if "propagateSizeHints" not in text:
        print(text, file=sys.stderr)


def wrap(value):
    """Return what Python code in Slicer would see of a value."""
    if isinstance(value, QtCore.QObject):
        known = getattr(value, "_pythonqt", None)
        return known if known is not None else proxy_class(type(value))(_of=value)
    if isinstance(value, (list, tuple)):
        return type(value)(wrap(each) for each in value)
    return value


def unwrap(value):
    """Return what PySide6 takes for a value."""
    if isinstance(value, Proxy):
        return value._object
    if isinstance(value, ProxyType):
        return value._class
    if isinstance(value, (list, tuple)):
        return type(value)(unwrap(each) for each in value)
    return value


def _method(function):
    def call(*arguments):
        return wrap(function(*(unwrap(each) for each in arguments)))

    return call


def _slot(function):
    """Call a Python function from a signal, and keep what goes wrong."""

    def call(*arguments):
        try:
            function(*(wrap(each) for each in arguments))
        except Exception:
            errors.append(traceback.format_exc())

    return call


class BoundSignal:
    """What `button.clicked` is."""

    def __init__(self, signal, signatures):
        self._signal = signal
        self._count = len(_arguments(signatures[0]))

    def connect(self, function):
        """Call the function with all that the signal carries."""
        self._signal.connect(_with_arguments(_slot(function), self._count))


class ProxyType(type):
    """The type of a widget class: its enumerations and static methods are attributes."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(cls._class, name)
        return _method(found) if callable(found) and not isinstance(found, type) else found


class Proxy(metaclass=ProxyType):
    """An object of Qt as PythonQt shows it."""

    _class = QtCore.QObject

    def __init__(self, *arguments, _of=None):
        made = _of if _of is not None else self._class(*(unwrap(each) for each in arguments))
        object.__setattr__(self, "_object", made)
        made._pythonqt = self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        target = self._object
        if name == "name":
            return target.objectName()
        if name not in _HIDDEN_PROPERTIES and target.metaObject().indexOfProperty(name) >= 0:
            return wrap(target.property(name))
        found = getattr(target, name, None)
        if found is None or name.startswith("_"):
            kind = self.className()
            raise AttributeError(f"{kind} has no attribute named '{name}'")
        if isinstance(found, QtCore.SignalInstance):
            return BoundSignal(found, _signatures(target, name))
        return _method(found) if callable(found) else wrap(found)

    def __setattr__(self, name, value):
        target = self._object
        if name == "name":
            target.setObjectName(value)
            return
        index = target.metaObject().indexOfProperty(name)
        if index < 0 or name in _HIDDEN_PROPERTIES:
            raise AttributeError(f"{self.className()} has no property '{name}' to be set")
        if not target.metaObject().property(index).isWritable():
            raise AttributeError(f"property '{name}' of {self.className()} cannot be set")
        if not target.setProperty(name, unwrap(value)):
            raise ValueError(f"property '{name}' of {self.className()} does not take {value!r}")

    def __bool__(self):
        return True

    def connect(self, signature, function):
        """Call the function whenever the signal of this signature comes."""
        target, plain = self._object, signature.replace(" ", "")
        own = getattr(target, "SIGNALS", {}).get(plain)
        if own is not None:
            # A signal that carries what only Slicer's C++ knows.
            count = len(_arguments(plain))
            getattr(target, own).connect(_with_arguments(_slot(function), count))
            return True
        if target.metaObject().indexOfSignal(plain) < 0:
            raise ValueError(f"{self.className()} has no signal {signature}")
        slot = _with_arguments(_slot(function), len(_arguments(plain)))
        # Qt forgets a slot that nobody holds.
        target.__dict__.setdefault("_slots", []).append(slot)
        return QtCore.QObject.connect(target, QtCore.SIGNAL(plain), slot)

    def className(self):
        """Return the C++ class's name."""
        return self._object.metaObject().className()


def proxy_class(qt_class):
    """Return the proxy of a class, its ancestors' among its own."""
    if qt_class is QtCore.QObject:
        return Proxy
    if qt_class not in _proxy_classes:
        parent = next(
            each
            for each in qt_class.__mro__[1:]
            if isinstance(each, type) and issubclass(each, QtCore.QObject)
        )
        _proxy_classes[qt_class] = ProxyType(
            qt_class.__name__, (proxy_class(parent),), {"_class": qt_class}
        )
    return _proxy_classes[qt_class]


def _arguments(signature):
    inside = signature[signature.index("(") + 1 : -1]
    return [each for each in inside.split(",") if each]


def _with_arguments(function, count):
    """Qt asks a function how many arguments it takes, so it has to be said plainly."""
    return [
        lambda: function(),
        lambda a: function(a),
        lambda a, b: function(a, b),
        lambda a, b, c: function(a, b, c),
    ][count]


def _signatures(target, name):
    meta = target.metaObject()
    methods = (meta.method(index) for index in range(meta.methodCount()))
    found = [
        bytes(method.methodSignature().data()).decode()
        for method in methods
        if bytes(method.name().data()).decode() == name
    ]
    return found or [f"{name}()"]


class Qt(types.ModuleType):
    """What `import qt` gives in Slicer: the classes of all of Qt's modules."""

    def __getattr__(self, name):
        # The namespace itself gave no answer where this was recorded, so nothing may rely on it.
        for module in _MODULES:
            found = getattr(module, name, None) if name != "Qt" else None
            if isinstance(found, type) and issubclass(found, QtCore.QObject):
                return proxy_class(found)
            if found is not None:
                return found
        raise AttributeError(f"module 'qt' has no attribute '{name}'")


qt = Qt("qt")
