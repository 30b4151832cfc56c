"""Settings of instruction tuning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from radfound.exceptions import TrainingError
from training.stages.common import StageConfig

ADAPTERS = ("lora", "full", "frozen")


@dataclass(frozen=True, kw_only=True)
class InstructConfig(StageConfig):
    """Settings of the stage, in addition to `StageConfig`.

    Parameters
    ----------
    vision : Path
        `vision.safetensors` of alignment.
    adapter : {"lora", "full", "frozen"}
        Train the language model by LoRA or in full, or leave it as it is with the adapter of `start`: what is learnt then comes
        through the picture, since the words of a question cannot be learnt by heart.
    rank : int
        Rank of LoRA.
    start : Path, optional
        Folder of an earlier run's `adapter`, to go on from; by default a new one.
    connector_factor : float
        Learning rate of the connector relative to the language model's; 0 freezes it.
    tokens_per_study : int
        Approximate number of question and answer tokens of one study in one step.
    views : int
        Number of encodings of each study: one unchanged, the others augmented.
    vqa_repeats : int
        Repetitions in an epoch of an image with several questions of its own.
    ground_steps : int
        Steps of grounding before instruction tuning (training/stages/grounding.py).
    words : float
        Loss weight of the grounding of the first visual tokens (training/stages/grounding.py).
    wording : float
        Loss weight of plain radiology text without a study.
    grid_steps : int
        Steps of aligning the grid tokens before instruction tuning (training/stages/instruct/grid.py).
    grid : float
        Loss weight of that alignment during instruction tuning.
    swap : float
        Loss weight of the margin by which the right image should beat another of the same labels.
    decide : float
        Loss weight of telling yes from no, in questions about one image alone.
    """

    vision: Path
    adapter: str = "lora"
    rank: int = 32
    start: Path | None = None
    connector_factor: float = 0.3
    tokens_per_study: int = 100
    views: int = 2
    vqa_repeats: int = 3
    ground_steps: int = 600
    words: float = 0.3
    wording: float = 0.1
    grid_steps: int = 400
    grid: float = 0.3
    swap: float = 0.0
    decide: float = 0.0

    def __post_init__(self) -> None:
        if self.adapter not in ADAPTERS:
            raise TrainingError(f"adapter is {self.adapter!r}; expected one of {ADAPTERS}")
        if self.adapter == "frozen" and self.start is None:
            raise TrainingError(
                "adapter=frozen keeps an earlier run's adapter; name its folder: start=…"
            )
