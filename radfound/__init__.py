"""RadFound: a vision-language model for radiology, and what it needs to answer about a study.

What is listed in `__all__` is the public face; each is imported when it is first used.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from radfound.vision_ops import prepare_torchvision

if TYPE_CHECKING:
    from radfound.correction import Correction
    from radfound.engine.engine import Engine
    from radfound.exceptions import RadFoundError
    from radfound.question import Answer, Turn
    from radfound.reading import read_study
    from radfound.study.region import Box, Plane
    from radfound.study.study import Study

__version__ = "0.1.0"

# torch's threads wait for each other by spinning: beside other work that makes them several times
# slower. Spin a little, then sleep. libgomp reads this once, when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
prepare_torchvision()

_HOMES = {
    "Answer": "radfound.question",
    "Box": "radfound.study.region",
    "Correction": "radfound.correction",
    "Engine": "radfound.engine.engine",
    "Plane": "radfound.study.region",
    "RadFoundError": "radfound.exceptions",
    "Study": "radfound.study.study",
    "Turn": "radfound.question",
    "read_study": "radfound.reading",
}
__all__ = [
    "Answer",
    "Box",
    "Correction",
    "Engine",
    "Plane",
    "RadFoundError",
    "Study",
    "Turn",
    "__version__",
    "read_study",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
