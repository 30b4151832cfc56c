"""What was asked about a study, and what came back."""

import uuid
from dataclasses import dataclass, field
from typing import Any, Optional

_TURNS_AS_CONTEXT = 8


@dataclass
class Turn:
    """One question and its answer.

    Parameters
    ----------
    task : {"vqa", "caption", "report"}
    question : str or None
        None for the other tasks than "vqa".
    where : str
        The part of the study that was looked at, in words; empty for all of it.
    region : dict or None
        The same, as the server takes it.
    history : list of {"question": str, "answer": str}
        What was sent as context.
    text : str
        As far as it has come.
    state : {"waiting", "answering", "answered", "stopped", "failed"}
    answer : dict or None
        `radfound.answer/1`, once it is whole.
    error : str
        Why it failed, in words.
    verdict : str or None
        What the reader made of it: "accepted", "edited" or "rejected".
    correction : str
        What the reader says instead.
    """

    task: str
    question: Optional[str] = None
    where: str = ""
    region: Optional[dict] = None
    history: list = field(default_factory=list)
    text: str = ""
    state: str = "waiting"
    answer: Optional[dict] = None
    error: str = ""
    verdict: Optional[str] = None
    correction: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def is_open(self) -> bool:
        """Whether more is to come."""
        return self.state in ("waiting", "answering")

    @property
    def final_text(self) -> str:
        """What the reader stands by: the correction where there is one."""
        return self.correction if self.verdict == "edited" else self.text


@dataclass
class Conversation:
    """The turns about one study, oldest first."""

    turns: list = field(default_factory=list)

    def history(self) -> list:
        """Return the last answered questions, as context for the next one.

        Where the reader wrote something else, that is what was answered; what was rejected is
        left out.
        """
        turns = [
            {"question": turn.question, "answer": turn.final_text}
            for turn in self.turns
            if turn.task == "vqa"
            and turn.state == "answered"
            and turn.verdict != "rejected"
            and turn.final_text.strip()
        ]
        return turns[-_TURNS_AS_CONTEXT:]

    def answered(self) -> list:
        """Return the turns with a whole answer, oldest first."""
        return [turn for turn in self.turns if turn.answer is not None]

    def find(self, turn_id: str) -> Any:
        """Return the turn of this id, or None."""
        return next((turn for turn in self.turns if turn.id == turn_id), None)
