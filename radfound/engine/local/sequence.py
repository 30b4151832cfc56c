"""A sequence during decoding: its tokens, and the text that each token adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radfound.engine.stream import Token

if TYPE_CHECKING:
    from radfound.model.processing_radfound import RadFoundProcessor


class RunningSequence:
    """A sequence in the batch."""

    def __init__(self, processor: RadFoundProcessor):
        self._tokenizer = processor.tokenizer
        self._ids: list[int] = []
        self._shown = ""

    def add(self, chosen: int, log_probability: float, entropy: float) -> Token:
        """Append a token id and return its Token."""
        last = chosen == self._tokenizer.eos_token_id
        if not last:
            self._ids.append(chosen)
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        # An incomplete character decodes to U+FFFD: wait for the rest.
        piece = "" if text.endswith("\ufffd") else text[len(self._shown) :]
        self._shown += piece
        return Token(piece, log_probability, entropy, last)
