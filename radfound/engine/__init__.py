"""The engine, which answers questions with one backend (`protocol.py`), and the backends, each in a folder of its own.

Modules of this folder import no torch. `Engine` is imported on first use, because `protocol.py` and `stream.py` stand alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radfound.engine.engine import Engine

__all__ = ["Engine"]


def __getattr__(name: str) -> Any:
    if name != "Engine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from radfound.engine.engine import Engine

    return Engine
