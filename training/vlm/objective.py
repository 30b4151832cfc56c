"""The loss on the answers' tokens, and the LoRA training that minimises it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from pydantic import Field, Strict
from torch import nn

from radfound.engine.transformers.adapters import TARGETS
from radfound.validation import Count, Positive, Truth
from training.loop.config import Draw, LoopConfig, Progress
from training.loop.optimise import optimise
from training.vlm.examples import Example, Examples


@dataclass(frozen=True)
class LoraSettings:
    """Hyperparameters of a run.

    Parameters
    ----------
    rank, alpha : int
        vLLM takes a rank of at most 16 unless told otherwise.
    dropout : float
    learning_rate : float
    epochs : int
        Passes over the corrections; each step holds as much replay as corrections.
    batch_size : int
        Examples in a step, over all processes.
    checkpointing : bool
        Compute activations twice and keep fewer: for large models on a GPU.
    seed : int
    """

    rank: Count = 16
    alpha: Count = 16
    dropout: Annotated[float, Strict(), Field(ge=0, lt=1)] = 0.05
    learning_rate: Positive = 2e-4
    epochs: Count = 8
    batch_size: Count = 4
    checkpointing: Truth = False
    seed: Annotated[int, Strict(), Field(ge=0)] = 0


class AnswerLoss(nn.Module):
    """Cross-entropy of the answers' tokens, averaged over the tokens of each answer, then over answers.

    Parameters
    ----------
    model : PeftModel
    examples : Examples
    """

    def __init__(self, model: Any, examples: Examples):
        super().__init__()
        self.model = model
        self._corrections, self._replay = examples.corrections, examples.replay

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a step's examples, and the share of tokens that are the likeliest ones."""
        losses, right = [], []
        for example in self._drawn(draw):
            logits, targets = answer_logits(self.model, example)
            losses.append(F.cross_entropy(logits.float(), targets))
            right.append((logits.argmax(-1) == targets).float().mean())
        return torch.stack(losses).mean(), {"tokens_right": float(torch.stack(right).mean())}

    def _drawn(self, draw: Draw) -> list[Example]:
        both = [self._corrections[n] for n in draw.indices(len(self._corrections))]
        if self._replay:
            chooser = draw.chooser()
            kept = (len(both) + 1) // 2
            both[kept:] = [chooser.choice(self._replay) for _ in both[kept:]]
        return both


def answer_logits(model: Any, example: Example) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits that predict an answer's tokens, shape (T, V), and the tokens, shape (T,)."""
    device, dtype = model.device, model.dtype
    inputs = {
        name: value.to(device, dtype if value.is_floating_point() else None)
        for name, value in example.inputs.items()
    }
    count = example.answer_tokens
    logits = model(**inputs, use_cache=False, logits_to_keep=count + 1).logits[0, :-1]
    return logits, inputs["input_ids"][0, -count:]


def train(
    model: Any,
    examples: Examples,
    settings: LoraSettings,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Any, int]:
    """Train a new adapter on a model; return the PeftModel around it, and the number of steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        adapted = get_peft_model(
            model,
            LoraConfig(
                r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
                target_modules=TARGETS, task_type="CAUSAL_LM",
            ),
        )  # fmt: skip
    if settings.checkpointing:
        adapted.enable_input_require_grads()
        adapted.gradient_checkpointing_enable()
    if hasattr(model.model, "rope_deltas"):
        model.model.rope_deltas = None
    batch = min(settings.batch_size, 2 * len(examples.corrections))
    steps = math.ceil(2 * settings.epochs * len(examples.corrections) / batch)
    config = LoopConfig(
        steps=steps, learning_rate=settings.learning_rate, batch_size=batch,
        warmup_steps=min(10, steps // 10), weight_decay=0.0, log_every=max(1, steps // 20),
        checkpoint_every=steps, seed=settings.seed,
        precision="fp32" if model.dtype == torch.float32 else "bf16",
    )  # fmt: skip
    adapted.train()
    parameters: Sequence[nn.Parameter] = [p for p in adapted.parameters() if p.requires_grad]
    optimise(AnswerLoss(adapted, examples), {1.0: parameters}, config, progress=progress)
    adapted.eval()
    if settings.checkpointing:
        adapted.gradient_checkpointing_disable()
    return adapted, steps
