"""What answers: the engine, and the backend that runs RadFound's own model (`local`).

`Engine` is imported when it is first used: it brings torch.
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
