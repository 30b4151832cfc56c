"""The protocol between engine and model, and RadFound's own model behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from peft import PeftModel
from transformers import DynamicCache

from radfound.engine.confidence import Calibration
from radfound.engine.local.batch import Batch
from radfound.engine.local.fast_llama import Llama, UnknownWeights
from radfound.engine.local.kv_cache import KVCache, Layers, forward
from radfound.engine.local.sequence import Token
from radfound.exceptions import AdapterError
from radfound.model import checkpoints
from radfound.model.attribution import Evidence, find_evidence
from radfound.model.devices import device_of
from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from radfound.model.processing_radfound import RadFoundProcessor
from radfound.question import Turn
from radfound.records.adapter_weights import check_weights
from radfound.study.region import Box, Plane
from radfound.study.study import Study


@dataclass(frozen=True)
class Generated:
    """A complete answer, generated without streaming.

    Parameters
    ----------
    text : str
    log_probabilities, entropies : tuple of float
        Of each token, as in `Token`, stop token included.
    complete : bool
        Whether the answer ended with the stop token rather than at the token limit.
    """

    text: str
    log_probabilities: tuple[float, ...]
    entropies: tuple[float, ...]
    complete: bool


@dataclass(frozen=True)
class Prompt:
    """Task, question and history for one study."""

    task: str
    question: str | None = None
    history: Sequence[Turn] = ()


class StudyModel(Protocol):
    """A model that answers questions about studies.

    Not thread-safe; the engine serialises all calls.
    """

    name: str
    revision: str
    vocabulary: int
    calibration: Calibration | None
    room: int
    """Most tokens after the study: history, question and answer together."""
    max_images: int

    def encode(self, study: Study, region: Box | Plane | None = None) -> Any:
        """Encode a study; the result serves any number of questions and any adapter."""

    def embed(self, encoded: Any) -> np.ndarray:
        """Return the embedding of a study: float32, shape (D,), length 1."""

    def prefill(self, encoded: Any) -> KVCache:
        """Prefill the part of the prompt that all questions about a study share; no adapter changes it."""

    def question_ids(self, prompt: Prompt) -> list[int]:
        """Return the token ids of the rest of a prompt; raises RequestError."""

    def batch(self) -> Batch:
        """Return an empty batch for decoding."""

    def generate(
        self, encoded: Sequence[Any], prompts: Sequence[Prompt], max_new_tokens: int
    ) -> list[Generated]:
        """Generate many answers in batches, each with the same text as `stream`."""

    def score(self, encoded: Any, prompt: Prompt, text: str) -> float:
        """Return the mean log-probability of the tokens of `text` as the answer."""

    def evidence(
        self, study: Study, region: Box | Plane | None, prompt: Prompt, text: str
    ) -> Evidence:
        """Return the evidence maps for `text` as the answer."""

    def load_adapter(self, folder: Path | None) -> None:
        """Load a LoRA adapter into the language model, or unload it if None."""


class LocalModel:
    """RadFound's own model, run in this process.

    Parameters
    ----------
    model : RadFoundForConditionalGeneration
    processor : RadFoundProcessor
    name, revision : str
    calibration : Calibration, optional
        Of the base model's probabilities.
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
        before, _ = processor.prompt_ids("caption", None)
        self.room = model.config.text_config.max_position_embeddings - len(before)
        self.max_images = processor.image_processor.max_frames
        self._is_tuned = False
        self._forward_function: Callable[..., tuple[torch.Tensor, Layers]] | None = None

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        device: str | None = None,
        dtype: torch.dtype = torch.bfloat16,
    ) -> LocalModel:
        """Load a checkpoint as `radfound.model.checkpoints.load` does, onto CUDA if available.

        Raises
        ------
        DeviceError
            If the device does not exist.
        """
        place = device_of(device)
        model, processor, name, revision = checkpoints.load(checkpoint, dtype)
        model.to(place)
        calibration = Calibration.read(checkpoints.shipped_folder(checkpoint), revision)
        return cls(model, processor, name, revision, calibration)

    def tune(self) -> None:
        """Use the fast forward pass from now on, if the language model is a llama on a CPU.

        The fast pass copies the weights: afterwards only `load_adapter` may change them.
        """
        self._is_tuned, self._forward_function = True, None

    @torch.no_grad()
    def encode(self, study: Study, region: Box | Plane | None = None) -> torch.Tensor:
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

    def prefill(self, encoded: torch.Tensor) -> KVCache:
        """Prefill system prompt and study, which all questions about the study share.

        Adapters act on the tokens after the study only, so one KV cache serves every adapter (decision 0007).
        """
        return self.prefill_many([encoded])[0]

    @torch.no_grad()
    def prefill_many(self, encoded: Sequence[torch.Tensor]) -> list[KVCache]:
        """Prefill system prompt and study for several studies in one batch."""
        before, _ = self.processor.prompt_ids("caption", None)
        ids = torch.tensor([before] * len(encoded), device=self.model.device)
        mask = torch.ones_like(ids)
        embeds = self.model.merge_visual_embeds(ids, torch.cat(list(encoded)))
        _, layers = self._forward((), embeds, mask, mask.cumsum(1) - 1, adapted=False)
        return [
            KVCache(tuple((keys[n : n + 1], values[n : n + 1]) for keys, values in layers))
            for n in range(len(encoded))
        ]

    def without_adapter(self) -> AbstractContextManager[None]:
        """Return a context manager that disables the adapter."""
        language_model = self.model.language_model
        return (
            language_model.disable_adapter()
            if isinstance(language_model, PeftModel)
            else nullcontext()
        )

    def _forward(
        self,
        layers: Layers,
        embeds: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        adapted: bool = True,
    ) -> tuple[torch.Tensor, Layers]:
        if self._forward_function is None:
            self._forward_function = self._new_forward_function()
        return self._forward_function(layers, embeds, mask, positions, adapted)

    def _new_forward_function(self) -> Callable[..., tuple[torch.Tensor, Layers]]:
        if self._is_tuned and self.model.device.type == "cpu":
            try:
                return Llama(self.model.language_model)
            except UnknownWeights:
                pass  # transformers can run them, but more slowly
        return self._forward_plainly

    def _forward_plainly(
        self,
        layers: Layers,
        embeds: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        adapted: bool,
    ) -> tuple[torch.Tensor, Layers]:
        with nullcontext() if adapted else self.without_adapter():
            return forward(self.model, layers, embeds, mask, positions)

    def question_ids(self, prompt: Prompt) -> list[int]:
        """Return the token ids of the rest of a prompt; raises RequestError."""
        return self.processor.prompt_ids(prompt.task, prompt.question, prompt.history)[1]

    def batch(self) -> Batch:
        """Return an empty batch for decoding."""
        return Batch(self.model, self.processor, self._forward)

    def stream(self, encoded: torch.Tensor, prompt: Prompt, max_new_tokens: int) -> Iterator[Token]:
        """Decode an answer greedily, token by token."""
        batch = self.batch()
        [(_, token)] = batch.join([self.prefill(encoded)], [self.question_ids(prompt)])
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
        """Decode many answers greedily, in batches.

        Prompts in one batch about the same tensor share its prefill.

        Parameters
        ----------
        encoded : sequence of tensor
            As returned by `encode`, one for each prompt; a tensor may occur several times.
        prompts : sequence of Prompt
        max_new_tokens : int
        batch_size : int
            Sequences decoded together.

        Returns
        -------
        list of Generated, in the order of the prompts
        """
        answers: list[Generated] = []
        for start in range(0, len(prompts), batch_size):
            chunk = encoded[start : start + batch_size]
            studies = {id(study): study for study in chunk}  # each distinct study is prefilled once
            caches = dict(zip(studies, self.prefill_many(list(studies.values())), strict=True))
            questions = [
                self.question_ids(prompt) for prompt in prompts[start : start + batch_size]
            ]
            prefixes = [caches[id(study)] for study in chunk]
            answers += self.write(prefixes, questions, max_new_tokens)
        return answers

    def write(
        self,
        prefixes: Sequence[KVCache],
        questions: Sequence[Sequence[int]],
        max_new_tokens: int,
    ) -> list[Generated]:
        """Decode answers in one batch, from the KV caches of studies and the token ids of questions."""
        batch = self.batch()
        generated = {sequence: [token] for sequence, token in batch.join(prefixes, questions)}
        for _ in range(max_new_tokens - 1):
            if not len(batch):
                break
            for sequence, token in batch.step():
                generated[sequence].append(token)
        return [_generated(tokens) for tokens in generated.values()]

    @torch.no_grad()
    def score(self, encoded: torch.Tensor, prompt: Prompt, text: str) -> float:
        """Return the mean log-probability of the tokens of `text`, stop token included."""
        answer = self.processor.answer_ids(text)
        ids = [*self.question_ids(prompt), *answer[:-1]]
        cache = DynamicCache(config=self.model.config.text_config)
        for number, (keys, values) in enumerate(self.prefill(encoded).layers):
            cache.update(keys, values, number)
        logits = self.model.language_model(
            input_ids=torch.tensor([ids], device=self.model.device),
            past_key_values=cache,
            logits_to_keep=len(answer),
        ).logits
        targets = torch.tensor(answer, device=logits.device)
        chosen = logits[0].float().log_softmax(-1).gather(-1, targets[:, None])
        return float(chosen.mean())

    def evidence(
        self, study: Study, region: Box | Plane | None, prompt: Prompt, text: str
    ) -> Evidence:
        """Return the evidence maps for `text` as the answer."""
        prompt_ids = self.processor.prompt_ids(prompt.task, prompt.question, prompt.history)
        answer = self.processor.answer_ids(text)
        return find_evidence(self.model, self.processor, study, region, prompt_ids, answer)

    def check_adapter(self, folder: Path) -> None:
        """Raise AdapterError if an adapter is damaged or does not fit this language model."""
        model = self.model.language_model
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        check_weights(
            folder,
            {
                name.removesuffix(".base_layer"): tuple(module.weight.shape)
                for name, module in base.named_modules()
                if isinstance(module, torch.nn.Linear) and ".lora_" not in name
            },
        )

    def load_adapter(self, folder: Path | None) -> None:
        """Load a LoRA adapter into the language model, or unload it if None.

        Raises
        ------
        AdapterError
            If the adapter does not fit; the base model stays without an adapter.
        """
        self._forward_function = None
        if isinstance(self.model.language_model, PeftModel):
            self.model.language_model = self.model.language_model.unload()
        if folder is None:
            return
        self.check_adapter(folder)
        base = self.model.language_model
        try:
            self.model.language_model = PeftModel.from_pretrained(base, str(folder)).eval()
        except Exception as error:  # peft raises many types on unexpected files
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
