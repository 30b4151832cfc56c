"""Shared by the three stages: settings, data, the model to train, and weight files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer

from radfound.datasets import Example, Kit
from radfound.exceptions import TrainingError
from radfound.model.checkpoints import load, mini_processor, new_mini_model
from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from radfound.model.processing_radfound import (
    IMAGE_TOKEN,
    RadFoundImageProcessor,
    RadFoundProcessor,
)
from radfound.model.sizes import new_model
from radfound.records.durable import replacing
from training.data.sources import read_source
from training.loop.config import LoopConfig
from training.loop.processes import process_number, training_device
from training.loop.weights import whole_state


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Settings that every stage has.

    Parameters
    ----------
    out : Path
    loop : LoopConfig
    data : Path, optional
        Folder of the data kit.
    sources, validation : tuple of str
        Further training and validation data, as `training.data.sources.read_source` takes them.
    model : str
        "radfound-mini", "radfound-tiny" (random, for tests), or a size of `radfound.model.sizes`.
    language_model : str, optional
        Folder or hub id of a causal language model; required for a size.
    """

    out: Path
    loop: LoopConfig
    data: Path | None = None
    sources: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    model: str = "radfound-mini"
    language_model: str | None = None


def stage_examples(
    config: StageConfig, of_kit: Callable[[Kit], Iterable[Example]], split: str = "train"
) -> list[Example]:
    """Return the examples of a split from the kit, through `of_kit`, and from the sources.

    Raises
    ------
    TrainingError
        If there are no training examples.
    """
    found = list(of_kit(Kit(config.data))) if config.data else []
    scratch = config.out / "unpacked" / str(process_number())
    for source in config.sources if split == "train" else config.validation:
        found += read_source(source, split, scratch / split)
    if not found and split == "train":
        raise TrainingError(
            "no examples to learn from; name the data kit's folder with --data, or other data with "
            "sources=[LAYOUT:FOLDER]"
        )
    return found


def stage_model(
    name: str, language_model: str | None = None
) -> tuple[RadFoundForConditionalGeneration, RadFoundProcessor]:
    """Return the model to train, on the device of this process, and its processor.

    Parameters
    ----------
    name, language_model
        As in `StageConfig`.

    Raises
    ------
    TrainingError
        If a size is given without a language model.
    CheckpointError
        If there is no such size or language model.
    """
    if name == "radfound-tiny":
        model, processor, _, _ = load(name)
    elif name == "radfound-mini":
        model, processor = new_mini_model(with_language_model=True), mini_processor()
    elif language_model is None:
        raise TrainingError(f"{name} has no language model of its own; name one: language_model=…")
    else:
        model = new_model(name, language_model)
        processor = RadFoundProcessor(
            RadFoundImageProcessor(model.config.vision_config.image_size),
            AutoTokenizer.from_pretrained(language_model, trust_remote_code=False),
            num_visual_tokens=model.config.num_visual_tokens,
        )
        # Embeddings often have more rows than the tokenizer has tokens.
        model.config.image_token_id = processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    return model.to(training_device()), processor


def save_parts(path: Path, parts: Mapping[str, nn.Module]) -> None:
    """Save modules to one safetensors file in bfloat16, tensor names prefixed with the part's name.

    Every process must call this, since each may hold a shard of the weights; the first one writes.
    """
    state = {
        f"{part}.{name}": tensor.to(torch.bfloat16).contiguous()
        for part, module in parts.items()
        for name, tensor in whole_state(module).items()
        if not name.endswith("num_batches_tracked")
    }
    if not state:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, private=False) as file:
        save_file(state, file.name, metadata={"format": "pt"})


def load_parts(path: Path, model: nn.Module) -> None:
    """Load a file of `save_parts` into a model.

    Raises
    ------
    TrainingError
        If the file is missing, or does not fit the model.
    """
    if not path.is_file():
        raise TrainingError(f"{path}: not found; run the stage before this one, or name its output")
    state = load_file(path)
    parts = {name.split(".", 1)[0] for name in state}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise TrainingError(f"{path}: of another size than this model ({error})") from error
    missing = [
        name
        for name in missing
        if name.split(".", 1)[0] in parts and not name.endswith("num_batches_tracked")
    ]
    if unexpected or missing:
        raise TrainingError(
            f"{path}: does not fit this model ({len(missing)} tensors missing, "
            f"{len(unexpected)} unknown); train it with the same version and model size"
        )
