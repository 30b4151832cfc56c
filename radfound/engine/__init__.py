"""The engine, which answers questions, and the backend of RadFound's own model (`local`).

`Engine` is imported on first use, because it imports torch.
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
