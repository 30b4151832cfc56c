"""RadFound's own model, run in this process; not thread-safe."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from torch.nn.utils.rnn import pad_sequence

from radfound.engine.generated import Generated
from radfound.engine.local.attribution import find_evidence
from radfound.engine.local.batch import Batch
from radfound.engine.local.fast_llama import Llama, UnknownWeights
from radfound.engine.local.kv_cache import KVCache, Layers, forward, forward_many, stacked
from radfound.engine.local.precision import dtype_for
from radfound.engine.stream import Token
from radfound.exceptions import AdapterError
from radfound.model import checkpoints
from radfound.model.devices import device_of
from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from radfound.model.processing_radfound import RadFoundProcessor
from radfound.question import Question
from radfound.records.adapter_weights import check_weights
from radfound.study.evidence_map import Evidence
from radfound.study.region import Box, Plane
from radfound.study.study import Study


class LocalModel:
    """Model and processor, with what one answer needs step by step.

    Parameters
    ----------
    model : RadFoundForConditionalGeneration
    processor : RadFoundProcessor
    name, revision : str
    """

    def __init__(
        self,
        model: RadFoundForConditionalGeneration,
        processor: RadFoundProcessor,
        name: str,
        revision: str,
    ):
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.revision = revision
        self.vocabulary = model.config.text_config.vocab_size
        before, _ = processor.prompt_ids("caption", None)
        self.context_tokens = model.config.text_config.max_position_embeddings
        self.room = self.context_tokens - len(before)
        """Most tokens after the study: history, question and answer together."""
        self.max_images = processor.image_processor.max_frames
        self._is_tuned = False
        self._forward_function: Callable[..., tuple[torch.Tensor, Layers]] | None = None

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        device: str | None = None,
        dtype: torch.dtype | None = None,
    ) -> LocalModel:
        """Load a checkpoint as `radfound.model.checkpoints.load` does, onto CUDA if available.

        Parameters
        ----------
        checkpoint : str or Path
        device : str, optional
        dtype : torch.dtype, optional
            By default the quickest one of the device; see `dtype_for`.

        Raises
        ------
        DeviceError
            If the device does not exist.
        """
        place = device_of(device)
        model, processor, name, revision = checkpoints.load(
            checkpoint, dtype or dtype_for(checkpoint, place)
        )
        model.to(place)
        return cls(model, processor, name, revision)

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

    def question_ids(self, question: Question) -> list[int]:
        """Return the token ids of the prompt after the study; raises RequestError."""
        return self.processor.prompt_ids(question.task, question.text, question.history)[1]

    def batch(self) -> Batch:
        """Return an empty batch for decoding."""
        return Batch(self.model, self.processor, self._forward)

    def stream(
        self, encoded: torch.Tensor, question: Question, max_new_tokens: int
    ) -> Iterator[Token]:
        """Decode an answer greedily, token by token."""
        batch = self.batch()
        [(_, token)] = batch.join([self.prefill(encoded)], [self.question_ids(question)])
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
        questions: Sequence[Question],
        max_new_tokens: int,
        batch_size: int = 32,
    ) -> list[Generated]:
        """Decode many answers greedily, in batches.

        Questions in one batch about the same tensor share its prefill.

        Parameters
        ----------
        encoded : sequence of tensor
            As returned by `encode`, one for each question; a tensor may occur several times.
        questions : sequence of Question
        max_new_tokens : int
        batch_size : int
            Sequences decoded together.

        Returns
        -------
        list of Generated, in the order of the questions
        """
        answers: list[Generated] = []
        for start in range(0, len(questions), batch_size):
            chunk = encoded[start : start + batch_size]
            studies = {id(study): study for study in chunk}  # each distinct study is prefilled once
            caches = dict(zip(studies, self.prefill_many(list(studies.values())), strict=True))
            asked = [self.question_ids(each) for each in questions[start : start + batch_size]]
            prefixes = [caches[id(study)] for study in chunk]
            answers += self.decode(prefixes, asked, max_new_tokens)
        return answers

    def decode(
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
        return [Generated.of(tokens) for tokens in generated.values()]

    def score(self, encoded: torch.Tensor, question: Question, text: str) -> float:
        """Return the mean log-probability of the tokens of `text`, stop token included."""
        [answer] = self.log_probabilities(self.prefill(encoded), question, [text])
        return float(answer.mean())

    @torch.no_grad()
    def log_probabilities(
        self, prefix: KVCache, question: Question, texts: Sequence[str]
    ) -> list[torch.Tensor]:
        """Return for each text the log-probabilities of its tokens as the answer, stop token included.

        The texts are padded on the right and share one forward pass; a text's tokens do not attend to its
        padding.
        """
        count = len(texts)
        layers = tuple(
            (keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1))
            for keys, values in prefix.layers
        )
        return self._log_probabilities(layers, question, texts)

    @torch.no_grad()
    def log_probabilities_about(
        self, prefixes: Sequence[KVCache], question: Question, text: str
    ) -> list[torch.Tensor]:
        """Return for each of several studies the log-probabilities of a text's tokens as the answer, in one pass."""
        return self._log_probabilities(stacked(prefixes), question, [text] * len(prefixes))

    def _log_probabilities(
        self, layers: Layers, question: Question, texts: Sequence[str]
    ) -> list[torch.Tensor]:
        asked, device = self.question_ids(question), self.model.device
        answers = [torch.tensor(self.processor.answer_ids(text)) for text in texts]
        rows = [torch.tensor([*asked, *answer[:-1].tolist()]) for answer in answers]
        ids = pad_sequence(rows, batch_first=True).to(device)
        embeds = self.model.get_input_embeddings()(ids)
        logits, _ = forward_many(self.model, layers, embeds, ids.shape[1] - len(asked) + 1)
        chances = logits.float().log_softmax(-1).cpu()
        return [
            row[: len(answer)].gather(-1, answer[:, None])[:, 0]
            for row, answer in zip(chances, answers, strict=True)
        ]

    @torch.no_grad()
    def question_logits(self, prefix: KVCache, question: Question) -> torch.Tensor:
        """Return the logits at each token of a question, float32, shape (L, vocabulary)."""
        ids = torch.tensor([self.question_ids(question)], device=self.model.device)
        embeds = self.model.get_input_embeddings()(ids)
        return forward_many(self.model, prefix.layers, embeds, ids.shape[1])[0][0].float()

    def evidence(self, study: Study, question: Question, text: str, before: str = "") -> Evidence:
        """Return the evidence maps for `text` as the answer, or as its part after `before`."""
        prompt_ids = self.processor.prompt_ids(question.task, question.text, question.history)
        answer = self.processor.answer_ids(before + text)
        # A token may reach across the border of the two texts; it belongs to the second.
        lead = self.processor.answer_ids(before)[:-1]
        first = len(os.path.commonprefix([lead, answer[:-1]]))
        return find_evidence(
            self.model, self.processor, study, question.region, prompt_ids, answer, first
        )

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
