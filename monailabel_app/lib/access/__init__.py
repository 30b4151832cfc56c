"""Who may call, with what, and how much: looked at before any route is, and by plain ASGI.

Imports nothing of the app's other parts.
"""

from .admission import LOG_IN, LOG_OUT, AccessError, Admission
from .gate import TOKEN_HEADER, ForeignError, Gate
from .headers import SafeHeaders
from .limits import BodyLimit
from .rules import Rules

__all__ = [
    "LOG_IN",
    "LOG_OUT",
    "TOKEN_HEADER",
    "AccessError",
    "Admission",
    "BodyLimit",
    "ForeignError",
    "Gate",
    "Rules",
    "SafeHeaders",
]
