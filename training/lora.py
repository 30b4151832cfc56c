"""The LoRA settings that instruction tuning and fine-tuning share."""

from __future__ import annotations

from collections.abc import Sequence

from peft import LoraConfig

LORA_TARGETS = ("q_proj", "v_proj", "o_proj", "down_proj")


def lora_config(rank: int, layers: Sequence[int]) -> LoraConfig:
    """Return the settings of an adapter on some of a language model's layers (arXiv 2106.09685).

    peft swaps an adapter in place only where its targets are those of the first.

    Parameters
    ----------
    rank : int
    layers : sequence of int
        Their numbers.
    """
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=list(LORA_TARGETS),
        layers_to_transform=list(layers),
        task_type="CAUSAL_LM",
    )
