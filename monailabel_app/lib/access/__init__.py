"""Access control as plain ASGI middleware: token, origin, request size and reply headers."""

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
