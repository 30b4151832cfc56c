"""Processor from studies and questions to model inputs, in Hugging Face form.

The prompt is system, study, earlier turns, question. The part up to the study does not depend on the
question and is tokenised separately, so that its KV cache serves all questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoProcessor, BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin

from radfound.exceptions import RequestError
from radfound.model.configuration_radfound import RadFoundConfig
from radfound.question import TASKS, Turn
from radfound.study.frames import FrameConfig, Frames, make_frames
from radfound.study.region import Box, Plane
from radfound.study.study import Study

SYSTEM_PROMPT = "You are a radiology assistant. Answer from the study."
IMAGE_TOKEN = "<image>"
_FIRST_QUESTION = "\x00"


class RadFoundImageProcessor(BaseImageProcessor):
    """Converts studies to padded batches of frames.

    Parameters
    ----------
    image_size, max_frames, windows_hu, percentiles
        As `FrameConfig` takes them.
    """

    model_input_names = ["pixel_values", "frame_mask", "positions_mm", "planes", "views"]

    def __init__(
        self,
        image_size: int = FrameConfig.image_size,
        max_frames: int = FrameConfig.max_frames,
        windows_hu: Sequence[Sequence[float]] = FrameConfig.windows_hu,
        percentiles: Sequence[float] = FrameConfig.percentiles,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.image_size = image_size
        self.max_frames = max_frames
        self.windows_hu = [list(window) for window in windows_hu]
        self.percentiles = list(percentiles)

    @property
    def frame_config(self) -> FrameConfig:
        """The settings of `make_frames`."""
        windows = tuple((center, width) for center, width in self.windows_hu)
        return FrameConfig(
            self.image_size, self.max_frames, windows, (self.percentiles[0], self.percentiles[1])
        )

    def preprocess(
        self,
        images: Study | Sequence[Study],
        regions: Sequence[Box | Plane | None] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Cut studies into frames and pad them to one frame count.

        Parameters
        ----------
        images : Study or sequence of Study, B of them
        regions : sequence of Box, Plane or None, optional
            One for each study, as `make_frames` takes it.

        Returns
        -------
        BatchFeature
            `pixel_values` (B, F, 3, S, S), `frame_mask` (B, F), `positions_mm` (B, F, 3), `planes` (B, F),
            `views` (B, F).
        """
        studies = [images] if isinstance(images, Study) else list(images)
        regions = [None] * len(studies) if regions is None else list(regions)
        cut = [
            make_frames(study, self.frame_config, region)
            for study, region in zip(studies, regions, strict=True)
        ]
        return BatchFeature(pad_frames(cut))


def pad_frames(batch: Sequence[Frames]) -> dict[str, torch.Tensor]:
    """Stack the frames of several studies; `frame_mask` is False for padding."""
    most = max(len(frames) for frames in batch)

    def padded(name: str) -> torch.Tensor:
        parts = [getattr(frames, name) for frames in batch]
        return torch.stack(
            [torch.cat([p, p.new_zeros(most - len(p), *p.shape[1:])]) for p in parts]
        )

    mask = torch.tensor([[index < len(frames) for index in range(most)] for frames in batch])
    return {
        "pixel_values": padded("pixels"),
        "frame_mask": mask,
        "positions_mm": padded("positions_mm"),
        "planes": padded("planes"),
        "views": padded("views"),
    }


class RadFoundProcessor(ProcessorMixin):
    """Converts studies, tasks and questions to model inputs, and generated ids to text.

    Parameters
    ----------
    image_processor : RadFoundImageProcessor
    tokenizer : PreTrainedTokenizerBase
        With a chat template; `<image>` is added if missing.
    num_visual_tokens : int
        Placeholders of a study in the prompt.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        num_visual_tokens: int = 32,
        **kwargs: Any,
    ):
        if tokenizer is not None and IMAGE_TOKEN not in tokenizer.get_vocab():
            tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
        self.num_visual_tokens = num_visual_tokens
        super().__init__(image_processor, tokenizer, **kwargs)

    def prompt(
        self, task: str, question: str | None, history: Sequence[Turn] = ()
    ) -> tuple[str, str]:
        """Return the prompt in two pieces: system and study, then earlier turns and the question.

        Parameters
        ----------
        task : {"vqa", "caption", "report"}
        question : str or None
            Needed for "vqa", ignored otherwise.
        history : sequence of Turn

        Raises
        ------
        RequestError
            If the task is unknown or the question is missing.
        """
        if task == "vqa":
            if not question or not question.strip():
                raise RequestError("question: empty; expected a question about the study")
        elif task not in TASKS:
            raise RequestError(f"task: found {task!r}; expected {' or '.join(TASKS)}")
        turns = [{"role": "system", "content": SYSTEM_PROMPT}]
        for turn in history:
            turns.append({"role": "user", "content": self._plain(turn.question)})
            turns.append({"role": "assistant", "content": self._plain(turn.answer)})
        turns.append({"role": "user", "content": TASKS[task].prompt or self._plain(str(question))})
        first = turns[1]["content"]
        turns[1] = {
            "role": "user",
            "content": IMAGE_TOKEN * self.num_visual_tokens + "\n" + _FIRST_QUESTION,
        }
        rendered = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )
        before, after = rendered.split(_FIRST_QUESTION, 1)
        return before, first + after

    def _plain(self, text: str) -> str:
        """Remove control tokens from a caller's text: only the template may contain them."""
        for token in (*self.tokenizer.all_special_tokens, IMAGE_TOKEN):
            text = text.replace(token, " ")
        return text.strip()

    def prompt_ids(
        self, task: str, question: str | None, history: Sequence[Turn] = ()
    ) -> tuple[list[int], list[int]]:
        """Return the token ids of the prompt's two pieces."""
        before, after = self.prompt(task, question, history)
        return self.text_ids(before), self.text_ids(after)

    def text_ids(self, text: str) -> list[int]:
        """Return the token ids of a text, without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def answer_ids(self, text: str) -> list[int]:
        """Return the token ids of an answer, stop token included."""
        return [*self.text_ids(self._plain(text)), self.tokenizer.eos_token_id]

    def __call__(
        self,
        images: Study | Sequence[Study] | None = None,
        text: str | Sequence[str] | None = None,
        task: str = "vqa",
        regions: Sequence[Box | Plane | None] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare studies and questions for `RadFoundForConditionalGeneration`.

        Parameters
        ----------
        images : Study or sequence of Study, B of them
        text : str or sequence of str, B questions
            None for captions and reports.
        task : {"vqa", "caption", "report"}
        regions : sequence of Box, Plane or None, optional

        Returns
        -------
        BatchFeature
            `input_ids` and `attention_mask` (B, L), padded on the left, and the tensors of
            `RadFoundImageProcessor`.
        """
        studies = [images] if isinstance(images, Study) else list(images or [])
        questions = [text] * len(studies) if text is None or isinstance(text, str) else list(text)
        prompts = [sum(self.prompt_ids(task, question), []) for question in questions]
        inputs = self.image_processor.preprocess(studies, regions=regions)
        inputs.update(pad_left(prompts, self.tokenizer.pad_token_id))
        return inputs

    def batch_decode(self, ids: Any, **kwargs: Any) -> list[str]:
        """Decode generated ids to texts."""
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True, **kwargs)


def pad_left(sequences: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `attention_mask`, shape (B, L), each sequence ending at the last position."""
    longest = max(len(ids) for ids in sequences)
    ids = [[pad_id] * (longest - len(s)) + list(s) for s in sequences]
    mask = [[0] * (longest - len(s)) + [1] * len(s) for s in sequences]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


AutoImageProcessor.register(
    RadFoundConfig, slow_image_processor_class=RadFoundImageProcessor, exist_ok=True
)
AutoProcessor.register(RadFoundConfig, RadFoundProcessor, exist_ok=True)
