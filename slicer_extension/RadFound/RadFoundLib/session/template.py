"""A department's template of a report, whose blanks the model fills as far as it can."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from ..translation import _
from .origin import is_silent

BLANK = "____"
_QUESTION = re.compile(r"\{([^{}]+\?)\}")
_HEADING = re.compile(r"\s*(findings|impression):\s*", re.IGNORECASE)
_LEAST_CONFIDENCE = 0.4


@dataclass(frozen=True)
class Template:
    """A text with questions in braces, such as "Effusion: {Is there an effusion?}".

    Parameters
    ----------
    name : str
    text : str
        Lines of a report, below "Findings:" and "Impression:" if the department wants headings.
    """

    name: str
    text: str

    def questions(self) -> list:
        """Return the questions of the blanks, each once, in order."""
        return list(dict.fromkeys(_QUESTION.findall(self.text)))

    def filled(self, answers: Sequence[dict]) -> str:
        """Return the text with the first questions answered; the others stay blank."""
        texts = dict(zip(self.questions(), map(_sure_text, answers)))
        return _QUESTION.sub(lambda found: texts.get(found.group(1)) or BLANK, self.text).strip()

    def answer(self, answers: Sequence[dict], images: Sequence[str]) -> dict:
        """Return the filled template as an answer of the task "report".

        It has no id of the server's: the department's words are not the model's, and are not
        sent as a correction of it.
        """
        text = self.filled(answers)
        known = [answer["confidence"] for answer in answers if answer.get("confidence") is not None]
        model: dict[str, Any] = dict(answers[-1]["model"]) if answers else {"name": _("no model")}
        return {
            "schema": "radfound.answer/1",
            "id": "",
            "task": "report",
            "images": list(images),
            "question": None,
            "text": text,
            "sections": _sections(text),
            "confidence": min(known, default=None),
            "model": model,
            "finished": True,
        }


def _sure_text(answer: dict) -> str:
    confidence: Optional[float] = answer.get("confidence")
    is_sure = confidence is None or confidence >= _LEAST_CONFIDENCE
    is_sure = is_sure and not is_silent(answer)
    return str(answer["text"]).strip().rstrip(".") if is_sure else ""


def _sections(text: str) -> Optional[dict]:
    parts = _HEADING.split(text)
    found = {name.lower(): part.strip() for name, part in zip(parts[1::2], parts[2::2])}
    return found or None
