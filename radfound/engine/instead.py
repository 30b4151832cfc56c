"""Text that takes the place of the language model's."""

from __future__ import annotations

from dataclasses import dataclass, replace

from radfound.question import Answer, split_report


@dataclass(frozen=True)
class Instead:
    """What is answered in place of the model's text.

    Parameters
    ----------
    text : str
    source : str
        As in `Answer`.
    reason : str or None
    confidence : float or None
    """

    text: str
    source: str
    reason: str | None = None
    confidence: float | None = None

    def of(self, answer: Answer) -> Answer:
        """Return the answer with this text; the model's own is kept beside it if there is one."""
        return replace(
            answer,
            text=self.text,
            source=self.source,
            reason=self.reason,
            confidence=self.confidence,
            uncertainty=answer.uncertainty if self.confidence is None else 1 - self.confidence,
            model_text=answer.text or None,
            sections=split_report(self.text) if answer.task == "report" else None,
            finished=True,
        )
