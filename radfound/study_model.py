"""What the engine asks of a model, and RadFound's own model behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from peft import PeftModel

from radfound import checkpoints
from radfound.confidence import Calibration
from radfound.decoding import Batch, Prefix, Token, read
from radfound.evidence import Evidence, find_evidence
from radfound.exceptions import AdapterError
from radfound.modeling_radfound import RadFoundForConditionalGeneration
from radfound.processing_radfound import RadFoundProcessor
from radfound.study import Study


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

    def read(self, encoded: Any) -> Prefix:
        """Read the beginning of every prompt about a study, with the adapter that is loaded."""

    def question_ids(self, prompt: Prompt) -> list[int]:
        """Return the token ids of the rest of a prompt; raises RequestError."""

    def batch(self) -> Batch:
        """Return what writes answers side by side."""

    def generate(
        self, encoded: Sequence[Any], prompts: Sequence[Prompt], max_new_tokens: int
    ) -> list[Generated]:
        """Write many answers at once; each has the text that `stream` would write."""

    def score(self, encoded: Any, prompt: Prompt, text: str) -> float:
        """Return the mean log-probability of the tokens of `text` as the answer."""

    def evidence(
        self, study: Study, region: dict[str, Any] | None, prompt: Prompt, text: str
    ) -> Evidence:
        """Return where it looked to write `text` as the answer."""

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
    def load(
        cls,
        checkpoint: str | Path,
        device: str | None = None,
        dtype: torch.dtype = torch.bfloat16,
    ) -> LocalModel:
        """Load a checkpoint as `radfound.checkpoints.load` does, onto CUDA where there is one."""
        model, processor, name, revision = checkpoints.load(checkpoint, dtype)
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
    def read(self, encoded: torch.Tensor) -> Prefix:
        """Read the beginning of every prompt about a study, with the adapter that is loaded."""
        before, _ = self.processor.prompt_ids("caption", None)
        ids = torch.tensor([before], device=self.model.device)
        mask = torch.ones_like(ids)
        embeds = self.model.merge_visual_embeds(ids, encoded)
        return Prefix(read(self.model, (), embeds, mask, mask.cumsum(1) - 1)[1])

    def question_ids(self, prompt: Prompt) -> list[int]:
        """Return the token ids of the rest of a prompt; raises RequestError."""
        return self.processor.prompt_ids(prompt.task, prompt.question, prompt.history)[1]

    def batch(self) -> Batch:
        """Return what writes answers side by side."""
        return Batch(self.model, self.processor)

    def stream(self, encoded: torch.Tensor, prompt: Prompt, max_new_tokens: int) -> Iterator[Token]:
        """Write an answer, greedily, token by token."""
        batch = self.batch()
        [(_, token)] = batch.join([self.read(encoded)], [self.question_ids(prompt)])
        yield token
        for _ in range(max_new_tokens - 1):
            if token.last:
                return
            [(_, token)] = batch.step()
            yield token

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
        prefixes: dict[int, Prefix] = {}
        for study in encoded:  # each distinct study is read once
            if id(study) not in prefixes:
                prefixes[id(study)] = self.read(study)
        batch = self.batch()
        tokens = batch.join(
            [prefixes[id(study)] for study in encoded],
            [self.question_ids(prompt) for prompt in prompts],
        )
        written = {draft: [token] for draft, token in tokens}
        for _ in range(max_new_tokens - 1):
            if not len(batch):
                break
            for draft, token in batch.step():
                written[draft].append(token)
        return [_generated(tokens) for tokens in written.values()]

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

    def evidence(
        self, study: Study, region: dict[str, Any] | None, prompt: Prompt, text: str
    ) -> Evidence:
        """Return where it looked to write `text` as the answer."""
        before, after = self.processor.prompt_ids(prompt.task, prompt.question, prompt.history)
        answer = self.processor.answer_ids(text)
        return find_evidence(self.model, self.processor, study, region, before + after, answer)

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


def _generated(tokens: Sequence[Token]) -> Generated:
    return Generated(
        "".join(token.text for token in tokens),
        tuple(token.log_probability for token in tokens),
        tuple(token.entropy for token in tokens),
        tokens[-1].last,
    )


def calibration_folder(checkpoint: str | Path) -> Path:
    """Return where a checkpoint's `calibration.json` stands: with the shipped weights, or in its folder."""
    if checkpoint == "radfound-mini":
        return checkpoints.WEIGHTS / "radfound-mini"
    return Path(checkpoint)
