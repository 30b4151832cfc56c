"""A report as a draft: its sentences, each accepted, edited or struck by the reader."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

SECTIONS = ("findings", "impression")
# Not after an abbreviation such as "approx. 3 mm".
_SENTENCE_END = re.compile(r"(?<!\bapprox\.)(?<!\bca\.)(?<!\bDr\.)(?<=[.!?])\s+(?=\S)|\s*\n+\s*")


@dataclass(eq=False)
class Sentence:
    """One sentence of a draft.

    Parameters
    ----------
    section : str
        "findings" or "impression"; empty for a report without headings.
    text : str
        As it stands in the report.
    model_text : str
        As the model wrote it; empty for a sentence of the reader's own.
    state : {"open", "accepted", "edited", "struck", "added", "measured"}
        "measured": a value that Slicer measured, not the model.
    """

    section: str
    text: str
    model_text: str = ""
    state: str = "open"


@dataclass
class Draft:
    """The sentences of a report, in order."""

    sentences: list = field(default_factory=list)

    @classmethod
    def of_answer(cls, answer: Mapping[str, Any]) -> "Draft":
        """Split a report into sentences, section by section."""
        sections = answer.get("sections") or {}
        named = {name: str(sections.get(name) or "") for name in SECTIONS}
        if not any(text.strip() for text in named.values()):
            named = {"": str(answer["text"])}
        return cls(
            [
                Sentence(name, sentence, sentence)
                for name, text in named.items()
                for sentence in split_sentences(text)
            ]
        )

    @property
    def is_changed(self) -> bool:
        """Whether the text is no longer the model's."""
        return any(
            each.state in ("edited", "struck", "added", "measured") for each in self.sentences
        )

    def accept(self, index: int) -> None:
        """Mark a sentence as right; a struck one comes back."""
        sentence = self.sentences[index]
        sentence.state = _unstruck(sentence)
        if sentence.state == "open":
            sentence.state = "accepted"

    def edit(self, index: int, text: str) -> None:
        """Replace a sentence; an empty text strikes it."""
        sentence, text = self.sentences[index], text.strip()
        if not text:
            sentence.state = "struck"
        elif text != sentence.text or sentence.state == "struck":
            sentence.text = text
            sentence.state = _unstruck(sentence)

    def strike(self, index: int) -> None:
        """Leave a sentence out of the report, or take it back; removes one of the reader's own."""
        sentence = self.sentences[index]
        if not sentence.model_text:
            del self.sentences[index]
        else:
            sentence.state = _unstruck(sentence) if sentence.state == "struck" else "struck"

    def add(self, text: str, after: Optional[int] = None, state: str = "added") -> int:
        """Add a sentence after another one, or at the end of the findings; returns its index."""
        if after is None:
            last = [i for i, each in enumerate(self.sentences) if each.section != "impression"]
            after = last[-1] if last else -1
        has_sections = any(each.section for each in self.sentences)
        section = self.sentences[after].section if after >= 0 else "findings" * has_sections
        self.sentences.insert(after + 1, Sentence(section, text.strip(), "", state))
        return after + 1

    def sections(self) -> dict:
        """Return the text of each section, without struck sentences."""
        found: dict = {}
        for name in (*SECTIONS, ""):
            kept = [s.text for s in self.sentences if s.section == name and s.state != "struck"]
            if kept:
                found[name] = " ".join(text for text in kept if text)
        return found

    def text(self) -> str:
        """Return the report in the wording that the model learns: "Findings: …", "Impression: …"."""
        return "\n".join(
            f"{name.capitalize()}: {text}" if name else text
            for name, text in self.sections().items()
        )


def split_sentences(text: str) -> list:
    """Split a text at the ends of its sentences and lines."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def _unstruck(sentence: Sentence) -> str:
    if not sentence.model_text:
        return sentence.state if sentence.state == "measured" else "added"
    return "open" if sentence.text == sentence.model_text else "edited"
