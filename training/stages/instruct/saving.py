"""The files of instruction tuning."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from training.loop.processes import is_first_process
from training.loop.weights import whole_state
from training.stages.common import save_parts

LANGUAGE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The base of radfound-mini's adapter, where no other language model is named."""


def save(
    model: RadFoundForConditionalGeneration, out: Path, language_model: str = LANGUAGE_MODEL
) -> list[str]:
    """Save vision encoder and connector in bfloat16, and the adapter in peft's format.

    A language model that was trained in full is saved with them. Every process must call this; the first one
    writes. `python -m training.stages.merge` makes one checkpoint folder of the files.

    Returns
    -------
    list of str
        Names of the files in `out`.
    """
    parts = {"vision_model": model.vision_model, "connector": model.connector}
    adapted = isinstance(model.language_model, PeftModel)
    if not adapted:
        parts["language_model"] = model.language_model
    save_parts(out / "model.safetensors", parts)
    if is_first_process():
        (out / "config.json").write_text(model.config.to_json_string(use_diff=False))
    return [
        "model.safetensors",
        "config.json",
        *(save_adapter(model, out, language_model) if adapted else ()),
    ]


def save_adapter(
    model: RadFoundForConditionalGeneration, out: Path, language_model: str
) -> list[str]:
    """Save the adapter of a language model in bfloat16."""
    state = whole_state(model.language_model)
    adapter = out / "adapter" / "adapter_model.safetensors"
    settings = adapter.with_name("adapter_config.json")
    if is_first_process():
        model.language_model.save_pretrained(
            adapter.parent, state_dict=state, save_embedding_layers=False
        )
        halved = {name: t.to(torch.bfloat16) for name, t in load_file(adapter).items()}
        save_file(halved, adapter, metadata={"format": "pt"})
        # peft saves the base model's local path; keep its name only.
        known = json.loads(settings.read_text())
        known["base_model_name_or_path"] = (
            Path(language_model).name if Path(language_model).exists() else language_model
        )
        known["target_modules"] = sorted(known["target_modules"])  # a set, so in any order
        settings.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    return [f"adapter/{adapter.name}", f"adapter/{settings.name}"]
