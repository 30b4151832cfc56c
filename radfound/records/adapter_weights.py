"""Checks of a LoRA adapter's weights before they are used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from radfound.exceptions import AdapterError

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"

Shape = tuple[int, ...]

# LoRA weights of the largest language models are smaller, and they are read at once.
_MOST_BYTES = 4 * 2**30
_LANGUAGE = re.compile(r"(?:(?:.*\.)?(?:language_model|text_model)|model\.layers)\..*")
_VISION = re.compile(r".*(?:vision|visual|image_encoder).*")
_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
# safetensors' dtype: numpy's unsigned type of that width, and the exponent bits, all 1 in NaN and infinity.
_EXPONENTS = {
    "F64": ("<u8", 0x7FF0 << 48),
    "F32": ("<u4", 0x7F80 << 16),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}


def check_weights(folder: Path, linears: Mapping[str, Shape] | None = None) -> None:
    """Raise unless a folder holds a valid LoRA adapter of a language model as saved by peft.

    Servers of models ignore weights of the vision encoder and the projector without a word, so that the model that
    answers would not be the one that passed the gate. Imports neither torch nor peft.

    Parameters
    ----------
    folder : Path
    linears : mapping of str to (out, in), optional
        The linear layers of the language model that the adapter is for.

    Raises
    ------
    AdapterError
        If the weights cannot be read, are too many, hold values that are not finite or are of another part of the
        model, do not come in pairs of one rank, or do not fit `linears`.
    """
    named = f"adapter {folder.name}"
    targets = _targets(folder, named)
    pairs: dict[str, dict[str, Shape]] = {}
    for name, tensor in _tensors(folder, named):
        _check_part(named, name, linears or {})
        if not _is_finite(tensor):
            raise AdapterError(f"{named}: {name} holds values that are not finite; train it again")
        match = _NAME.fullmatch(name)
        if match:
            pairs.setdefault(match["module"], {})[match["side"]] = tuple(tensor["shape"])
    if not pairs:
        raise AdapterError(f"{named}: holds no LoRA weights; save the adapter by peft")
    for module, sides in pairs.items():
        _check_pair(named, module, sides, linears)
    missing = [name for name in linears or () if _is_target(name, targets) and name not in pairs]
    if missing:
        raise AdapterError(
            f"{named}: {len(missing)} of its layers are missing, such as {missing[0]}; train it again"
        )


def _targets(folder: Path, named: str) -> tuple[str, ...]:
    """Return the name suffixes of the adapter's target layers; empty if the config selects them in another way."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        is_lora = config["peft_type"] == "LORA"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{named}: its {CONFIG_FILE} is missing or damaged") from error
    if not is_lora:
        raise AdapterError(f"{named}: found an adapter of another kind; expected LoRA")
    targets = config.get("target_modules")
    is_plain = isinstance(targets, list) and not config.get("layers_to_transform")
    return tuple(targets) if is_plain and all(isinstance(each, str) for each in targets) else ()


def _tensors(folder: Path, named: str) -> list[tuple[str, dict[str, Any]]]:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise AdapterError(f"{named}: holds no {WEIGHTS_FILE}; weights in a pickle are not loaded")
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise AdapterError(
            f"{named}: its weights take {size / 2**30:.1f} GB; expected at most {_MOST_BYTES >> 30} GB; train it with "
            "a lower rank"
        )
    try:
        return list(safetensors.deserialize(path.read_bytes()))
    except (OSError, safetensors.SafetensorError) as error:
        raise AdapterError(
            f"{named}: its {WEIGHTS_FILE} is no safetensors file ({error}); train it again"
        ) from error


def _check_part(named: str, name: str, linears: Mapping[str, Shape]) -> None:
    """Raise AdapterError if a tensor is not of LoRA in the language model, whose layers are `linears` if known."""
    if ".lora_" not in name:
        raise AdapterError(
            f"{named}: holds whole layers ({name}); servers of models load LoRA only: train without modules_to_save"
        )
    module = name.removeprefix("base_model.model.").partition(".lora_")[0]
    if module not in linears and not is_of_language_model(module):
        raise AdapterError(
            f"{named}: {name} is not of the language model; servers of models ignore it without a word: train the "
            "language model's layers alone"
        )


def is_of_language_model(module: str) -> bool:
    """Whether a module of a vision-language model, named from its root, or of a language model, is one of its layers."""
    return bool(_LANGUAGE.fullmatch(module)) and not _VISION.fullmatch(module)


def _is_finite(tensor: Mapping[str, Any]) -> bool:
    if tensor["dtype"] not in _EXPONENTS:
        return True
    bits, exponent = _EXPONENTS[tensor["dtype"]]
    values = np.frombuffer(tensor["data"], bits)
    return not bool(((values & exponent) == exponent).any())


def _check_pair(
    named: str, module: str, sides: Mapping[str, Shape], linears: Mapping[str, Shape] | None
) -> None:
    down, up = sides.get("A"), sides.get("B")
    if down is None or up is None or len(down) != 2 or len(up) != 2 or down[0] != up[1]:
        raise AdapterError(
            f"{named}: {module}: found {down} and {up}; expected (rank, in) and (out, rank)"
        )
    if linears is None:
        return
    if module not in linears:
        raise AdapterError(f"{named}: {module}: the base model has no such layer; train it again")
    if (up[0], down[1]) != tuple(linears[module]):
        raise AdapterError(
            f"{named}: {module}: of shape {(up[0], down[1])}, the base model's is {linears[module]}; "
            "train it again"
        )


def _is_target(name: str, targets: tuple[str, ...]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)
