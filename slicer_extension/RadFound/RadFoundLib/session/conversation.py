"""Conversations: the questions about a study and their answers."""

import json
import uuid
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

from .draft import Draft, Sentence, split_sentences
from .origin import is_silent, own_text

_TURNS_AS_CONTEXT = 8
_SCHEMA = "radfound.conversation/1"
_NOT_KEPT = {"draft": None, "is_unfolded": False, "has_open_slices": False, "typed": None}


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
    draft : Draft or None
        The sentences of a report or of a long caption.
    is_unfolded : bool
        Whether the reader has opened what is folded: an unsure answer, or the model's own text.
    has_open_slices : bool
        Whether the reader has opened the list of slices that the model was shown.
    recall : bool
        False if the model itself was asked, although a reader's text may be known.
    prior : str
        Id of the earlier study on the server that was compared; empty for none.
    template : str
        Name of the template that the report was made from.
    correction_id : str
        Id of the last verdict.
    typed : str or None
        The reader's text of an answer without a draft, while it is not saved; None if there is none.
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
    draft: Optional[Draft] = None
    is_unfolded: bool = False
    has_open_slices: bool = False
    recall: bool = True
    prior: str = ""
    template: str = ""
    correction_id: str = ""
    typed: Optional[str] = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def is_unsaved(self) -> bool:
        """Whether the reader has changed the answer's text and not saved that."""
        if self.draft is None:
            return self.typed is not None
        is_saved = self.verdict == "edited" and self.draft.text() == self.correction
        return self.draft.is_changed and not is_saved

    @property
    def is_open(self) -> bool:
        """Whether the answer is not complete yet."""
        return self.state in ("waiting", "answering")

    @property
    def can_be_asked_again(self) -> bool:
        """Whether the answer failed or was stopped; a template is chosen anew instead."""
        return self.state in ("failed", "stopped") and not self.template

    @property
    def is_silent(self) -> bool:
        """Whether neither the server nor a reader has answered."""
        return self.verdict is None and self.answer is not None and is_silent(self.answer)

    @property
    def can_be_explained(self) -> bool:
        """Whether a server can map where the model looked; not for a template, nor where nothing was answered."""
        return self.answer is not None and not self.template and not is_silent(self.answer)

    @property
    def model_text(self) -> str:
        """The model's own text, also where another one is shown in its place."""
        return own_text(self.answer or {}) or self.text

    @property
    def final_text(self) -> str:
        """The reader's correction if there is one, else the model's text."""
        return self.correction if self.verdict == "edited" else self.text

    def undo_verdict(self) -> None:
        """Forget the reader's verdict, which was taken back."""
        self.verdict, self.correction, self.correction_id = None, "", ""
        if self.draft is not None and self.answer is not None:
            self.draft = Draft.of_answer(self.answer)

    def receive(self, answer: dict) -> None:
        """Take the complete answer."""
        self.answer, self.text, self.state = answer, answer["text"], "answered"
        is_long = self.task == "caption" and len(split_sentences(self.text)) > 1
        self.draft = Draft.of_answer(answer) if self.task == "report" or is_long else None


@dataclass
class Conversation:
    """The turns about one study, oldest first."""

    turns: list = field(default_factory=list)

    def history(self) -> list:
        """Return the last answered questions, as context for the next one.

        An edited answer counts as the reader's text; rejected and silent answers are left out.
        """
        turns = [
            {"question": turn.question, "answer": turn.final_text}
            for turn in self.turns
            if turn.task == "vqa"
            and turn.state == "answered"
            and turn.verdict != "rejected"
            and not turn.is_silent
            and turn.final_text.strip()
        ]
        return turns[-_TURNS_AS_CONTEXT:]

    def to_text(self) -> str:
        """Return the answered turns as JSON, to be kept with a scene."""
        return json.dumps(
            {"schema": _SCHEMA, "turns": [asdict(turn) for turn in self.answered()]}, indent=1
        )

    @classmethod
    def from_text(cls, text: str) -> "Conversation":
        """Restore a conversation; ValueError if it is none of this version."""
        try:
            content = json.loads(text)
            if content["schema"] != _SCHEMA:
                raise ValueError("schema")
            return cls([_turn(row) for row in content["turns"]])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not a conversation of this version") from error

    @property
    def has_unsaved(self) -> bool:
        """Whether the reader's text of an answer is not saved."""
        return any(turn.is_unsaved for turn in self.turns)

    def answered(self) -> list:
        """Return the turns with a complete answer, oldest first."""
        return [turn for turn in self.turns if turn.answer is not None]

    def find(self, turn_id: str) -> Any:
        """Return the turn of this id, or None."""
        return next((turn for turn in self.turns if turn.id == turn_id), None)


def _turn(row: dict) -> Turn:
    answer = row["answer"]
    texts = (row["task"], row["text"], answer["text"], answer["id"], answer["model"]["name"])
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("not a conversation of this version")
    turn = Turn(**{**row, **_NOT_KEPT})
    if row["draft"] is not None:
        turn.draft = Draft([Sentence(**each) for each in row["draft"]["sentences"]])
    return turn
