"""What can be seen of a study without a language model: fields and findings of small calibrated classifiers.

`catalogue` lists the fields, `questions` tells which field a question asks for, `features` turns frames into numbers, `heads`
are the classifiers and the test whether a picture is like those they were fitted to, `model` reads a study and answers
questions, `compose` writes captions and reports. At run time only numpy is needed beside the encoder's stem. Imports
`radfound.study`, `radfound.model` and `radfound.question`; fitted by `training.fields`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radfound.fields.model import FieldModel

__all__ = ["FieldModel"]


def __getattr__(name: str) -> Any:
    if name != "FieldModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from radfound.fields.model import FieldModel

    return FieldModel
