"""Conversations: the questions about a study and their answers."""

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
        None unless the task is "vqa".
    where : str
        The part of the study in words; empty for the whole study.
    region : dict or None
        The same part as JSON for the server.
    history : list of {"question": str, "answer": str}
        Earlier turns that were sent as context.
    text : str
        The text streamed so far.
    state : {"waiting", "answering", "answered", "stopped", "failed"}
    answer : dict or None
        The complete `radfound.answer/1`.
    error : str
        Why it failed, in words.
    verdict : str or None
        The reader's verdict: "accepted", "edited" or "rejected".
    correction : str
        The reader's text in place of the answer.
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
        """Whether the answer is not complete yet."""
        return self.state in ("waiting", "answering")

    @property
    def final_text(self) -> str:
        """The reader's correction if there is one, else the model's text."""
        return self.correction if self.verdict == "edited" else self.text


@dataclass
class Conversation:
    """The turns about one study, oldest first."""

    turns: list = field(default_factory=list)

    def history(self) -> list:
        """Return the last answered questions, as context for the next one.

        An edited answer counts as the reader's text; rejected answers are left out.
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
        """Return the turns with a complete answer, oldest first."""
        return [turn for turn in self.turns if turn.answer is not None]

    def find(self, turn_id: str) -> Any:
        """Return the turn of this id, or None."""
        return next((turn for turn in self.turns if turn.id == turn_id), None)
