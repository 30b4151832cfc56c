"""What the engine asks of a model, and RadFound's own model behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from peft import PeftModel
from transformers import DynamicCache

from radfound import checkpoints
from radfound.confidence import Calibration
from radfound.exceptions import AdapterError
from radfound.modeling_radfound import RadFoundForConditionalGeneration
from radfound.processing_radfound import RadFoundProcessor, pad_left
from radfound.study import Study


@dataclass(frozen=True)
class Token:
    """One generated token.

    Parameters
    ----------
    text : str
        What it adds to the answer; may be empty while a character is incomplete.
    log_probability : float
    entropy : float
        Of the distribution it was chosen from, in nats.
    last : bool
        Whether it is the stop token.
    """

    text: str
    log_probability: float
    entropy: float
    last: bool = False


@dataclass(frozen=True)
class Generated:
    """A whole answer, written without streaming.

    Parameters
    ----------
    text : str
    log_probabilities, entropies : tuple of float
        Of each token, as in `Token`; the stop token is among them.
    complete : bool
        Whether it ended with the stop token, and not at the limit.
    """

    text: str
    log_probabilities: tuple[float, ...]
    entropies: tuple[float, ...]
    complete: bool


@dataclass(frozen=True)
class Prompt:
    """What is asked about a study."""

    task: str
    question: str | None = None
    history: Sequence[Mapping[str, str]] = ()


class StudyModel(Protocol):
    """A model that reads studies and writes about them.

    Not safe for use by several threads at once; the engine sees to that.
    """

    name: str
    revision: str
    vocabulary: int
    calibration: Calibration | None

    def encode(self, study: Study, region: dict[str, Any] | None = None) -> Any:
        """Read a study once; what comes back can be asked about many times, with any adapter."""

    def embed(self, encoded: Any) -> np.ndarray:
        """Return where a study lies among others: float32, shape (D,), of length 1."""

    def stream(self, encoded: Any, prompt: Prompt, max_new_tokens: int) -> Iterator[Token]:
        """Write an answer, greedily, token by token."""

    def generate(
        self, encoded: Sequence[Any], prompts: Sequence[Prompt], max_new_tokens: int
    ) -> list[Generated]:
        """Write many answers at once; each has the text that `stream` would write."""

    def score(self, encoded: Any, prompt: Prompt, text: str) -> float:
        """Return the mean log-probability of the tokens of `text` as the answer."""

    def load_adapter(self, folder: Path | None) -> None:
        """Put a LoRA adapter in front of the language model, or take it away."""


class LocalModel:
    """RadFound in this process.

    Parameters
    ----------
    model : RadFoundForConditionalGeneration
    processor : RadFoundProcessor
    name, revision : str
    calibration : Calibration, optional
        What the base model's probabilities are worth.
    """

    def __init__(
        self,
        model: RadFoundForConditionalGeneration,
        processor: RadFoundProcessor,
        name: str,
        revision: str,
        calibration: Calibration | None = None,
    ):
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.revision = revision
        self.vocabulary = model.config.text_config.vocab_size
        self.calibration = calibration

    @classmethod
    def load(cls, checkpoint: str | Path, device: str | None = None) -> LocalModel:
        """Load a checkpoint as `radfound.checkpoints.load` does, onto CUDA where there is one."""
        model, processor, name, revision = checkpoints.load(checkpoint)
        model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        calibration = Calibration.read(calibration_folder(checkpoint), revision)
        return cls(model, processor, name, revision, calibration)

    @torch.no_grad()
    def encode(self, study: Study, region: dict[str, Any] | None = None) -> torch.Tensor:
        """Return the study's visual tokens, shape (1, num_visual_tokens, text hidden_size)."""
        inputs = self.processor.image_processor.preprocess(study, regions=[region]).to(
            self.model.device
        )
        return self.model.get_image_features(**inputs)

    def embed(self, encoded: torch.Tensor) -> np.ndarray:
        """Return the mean of a study's visual tokens, scaled to length 1; shape (hidden_size,)."""
        mean = encoded[0].float().mean(0)
        embedding: np.ndarray = (mean / mean.norm().clamp_min(1e-12)).cpu().numpy()
        return embedding

    @torch.no_grad()
    def stream(self, encoded: torch.Tensor, prompt: Prompt, max_new_tokens: int) -> Iterator[Token]:
        """Write an answer, greedily, token by token."""
        tokenizer = self.processor.tokenizer
        inputs = self._embeds(encoded, prompt)
        cache = DynamicCache(config=self.model.config.text_config)
        ids: list[int] = []
        shown = ""
        for _ in range(max_new_tokens):
            output = self.model.language_model(
                inputs_embeds=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            log_probabilities = output.logits[0, -1].float().log_softmax(-1)
            chosen = int(log_probabilities.argmax())
            last = chosen == tokenizer.eos_token_id
            if not last:
                ids.append(chosen)
            text = tokenizer.decode(ids, skip_special_tokens=True)
            # Half a character decodes to U+FFFD: wait for its other half.
            piece = "" if text.endswith("\ufffd") else text[len(shown) :]
            shown += piece
            entropy = -(log_probabilities.exp() * log_probabilities).nansum()
            yield Token(piece, float(log_probabilities[chosen]), float(entropy), last)
            if last:
                return
            inputs = self.model.get_input_embeddings()(
                torch.tensor([[chosen]], device=self.model.device)
            )

    @torch.no_grad()
    def generate(
        self,
        encoded: Sequence[torch.Tensor],
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        batch_size: int = 32,
    ) -> list[Generated]:
        """Write many answers at once, greedily.

        Prompts about the same tensor that stand near each other share the reading of it.

        Parameters
        ----------
        encoded : sequence of tensor
            What `encode` returned, one for each prompt; the same one may stand there often.
        prompts : sequence of Prompt
        max_new_tokens : int
        batch_size : int
            How many are written side by side.

        Returns
        -------
        list of Generated, in the order of the prompts
        """
        written: list[Generated] = []
        for start in range(0, len(prompts), batch_size):
            some = slice(start, start + batch_size)
            written += self._generate_batch(encoded[some], prompts[some], max_new_tokens)
        return written

    def _generate_batch(
        self, encoded: Sequence[torch.Tensor], prompts: Sequence[Prompt], max_new_tokens: int
    ) -> list[Generated]:
        drafts: list[list[tuple[int, float, float]]] = [[] for _ in prompts]
        rows = list(range(len(prompts)))
        logits, mask, cache = self._prefill(encoded, prompts)
        for _ in range(max_new_tokens):
            log_probabilities = logits.float().log_softmax(-1)
            chosen = log_probabilities.argmax(-1)
            best = log_probabilities.gather(-1, chosen[:, None])[:, 0]
            entropy = -(log_probabilities.exp() * log_probabilities).nansum(-1)
            for row, *token in zip(
                rows, chosen.tolist(), best.tolist(), entropy.tolist(), strict=True
            ):
                drafts[row].append((token[0], token[1], token[2]))
            going = (chosen != self.processor.tokenizer.eos_token_id).nonzero()[:, 0]
            if len(going) == 0:
                break
            if len(going) < len(rows):  # those that have ended cost nothing from here on
                cache.batch_select_indices(going)
                mask, chosen = mask[going], chosen[going]
                rows = [rows[k] for k in going.tolist()]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            logits = self._step(
                self.model.get_input_embeddings()(chosen[:, None]),
                mask,
                mask.sum(1, keepdim=True) - 1,
                cache,
            )
        return [self._generated(draft) for draft in drafts]

    def _prefill(
        self, encoded: Sequence[torch.Tensor], prompts: Sequence[Prompt]
    ) -> tuple[torch.Tensor, torch.Tensor, DynamicCache]:
        """Read each distinct study once, then each prompt after its study, padded on the left."""
        distinct = {id(study): study for study in encoded}
        place = {name: row for row, name in enumerate(distinct)}
        rows = torch.tensor([place[id(study)] for study in encoded], device=self.model.device)
        pieces = [
            self.processor.prompt_ids(prompt.task, prompt.question, prompt.history)
            for prompt in prompts
        ]
        before = torch.tensor([pieces[0][0]] * len(distinct), device=self.model.device)
        embeds = self.model.merge_visual_embeds(before, torch.cat(list(distinct.values())))
        cache = DynamicCache(config=self.model.config.text_config)
        mask = torch.ones_like(before)
        self._step(embeds, mask, mask.cumsum(1) - 1, cache)
        cache.batch_select_indices(rows)
        after = pad_left([piece[1] for piece in pieces], self.processor.tokenizer.pad_token_id)
        own = after["attention_mask"].to(self.model.device)
        mask = torch.cat([mask[rows], own], dim=1)
        embeds = self.model.get_input_embeddings()(after["input_ids"].to(self.model.device))
        positions = (mask.cumsum(1) - 1)[:, -own.shape[1] :]
        return self._step(embeds, mask, positions, cache), mask, cache

    def _step(
        self,
        embeds: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        cache: DynamicCache,
    ) -> torch.Tensor:
        """Read on; return the logits of the last position, shape (B, vocabulary)."""
        output = self.model.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _generated(self, draft: Sequence[tuple[int, float, float]]) -> Generated:
        tokenizer = self.processor.tokenizer
        ids = [token for token, _, _ in draft]
        complete = bool(ids) and ids[-1] == tokenizer.eos_token_id
        if complete:
            ids.pop()
        text = tokenizer.decode(ids, skip_special_tokens=True)
        while text.endswith("\ufffd"):  # half a character at the end, which a stream holds back
            ids.pop()
            text = tokenizer.decode(ids, skip_special_tokens=True)
        return Generated(
            text,
            tuple(value for _, value, _ in draft),
            tuple(value for _, _, value in draft),
            complete,
        )

    @torch.no_grad()
    def score(self, encoded: torch.Tensor, prompt: Prompt, text: str) -> float:
        """Return the mean log-probability of the tokens of `text`, stop token included."""
        answer = torch.tensor([self.processor.answer_ids(text)], device=self.model.device)
        embeds = torch.cat(
            [self._embeds(encoded, prompt), self.model.get_input_embeddings()(answer[:, :-1])],
            dim=1,
        )
        logits = self.model.language_model(
            inputs_embeds=embeds, logits_to_keep=answer.shape[1]
        ).logits
        chosen = logits.float().log_softmax(-1).gather(-1, answer[..., None])
        return float(chosen.mean())

    def _embeds(self, encoded: torch.Tensor, prompt: Prompt) -> torch.Tensor:
        before, after = self.processor.prompt_ids(prompt.task, prompt.question, prompt.history)
        ids = torch.tensor([before + after], device=self.model.device)
        return self.model.merge_visual_embeds(ids, encoded)

    def load_adapter(self, folder: Path | None) -> None:
        """Put a LoRA adapter in front of the language model, or take it away.

        Raises
        ------
        AdapterError
            If it does not fit; the base model is left without an adapter.
        """
        if isinstance(self.model.language_model, PeftModel):
            self.model.language_model = self.model.language_model.unload()
        if folder is None:
            return
        base = self.model.language_model
        try:
            self.model.language_model = PeftModel.from_pretrained(base, str(folder)).eval()
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise AdapterError(
                f"adapter {folder.name}: does not fit {self.name} ({error}); activate another or train a new one"
            ) from error


def calibration_folder(checkpoint: str | Path) -> Path:
    """Return where a checkpoint's `calibration.json` stands: with the shipped weights, or in its folder."""
    if checkpoint == "radfound-mini":
        return checkpoints.WEIGHTS / "radfound-mini"
    return Path(checkpoint)
