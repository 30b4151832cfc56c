"""Small adapters as peft saves them, sound or not."""

import json

import numpy as np
from safetensors.numpy import save_file

MODULE = "model.layers.0.self_attn.q_proj"


def save_adapter(folder, rank=2, width=8, modules=(MODULE,), tensors=None):
    """Write an adapter of the linear layers named; `tensors` replace or, if None, take away its own."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(0)
    found = {}
    for module in modules:
        for side, shape in (("A", (rank, width)), ("B", (width, rank))):
            name = f"base_model.model.{module}.lora_{side}.weight"
            found[name] = chance.normal(size=shape).astype(np.float32)
    found |= tensors or {}
    save_file(
        {name: tensor for name, tensor in found.items() if tensor is not None},
        folder / "adapter_model.safetensors",
    )
    targets = sorted({module.rpartition(".")[2] for module in modules})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
