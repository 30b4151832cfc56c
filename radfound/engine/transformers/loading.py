"""Load a vision-language model from a folder of safetensors, without running code that comes with it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from radfound.exceptions import CheckpointError, RequestError
from radfound.model.devices import device_of
from radfound.optional import library

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model with its processor.

    Parameters
    ----------
    model : PreTrainedModel
    processor : ProcessorMixin
    revision : str
        As `revision_of` gives it.
    """

    model: Any
    processor: Any
    revision: str


def load(
    folder: str | Path,
    *,
    device: str | None = None,
    dtype: str = "bfloat16",
    bits: int | None = None,
) -> Loaded:
    """Load a model and its processor.

    Parameters
    ----------
    folder : str or Path
        As `save_pretrained` writes it.
    device : str, optional
        Such as "cpu" or "cuda:1"; the best of this machine by default.
    dtype : {"bfloat16", "float16", "float32"}
        Gemma 3 gives wrong answers in float16.
    bits : {4, 8}, optional
        Quantise the linear layers by bitsandbytes.

    Raises
    ------
    CheckpointError
        If the folder is incomplete, holds pickles or needs custom code, or is of no supported family.
    DeviceError
        If this machine has no such device.
    RequestError
        If dtype or bits are not as above, or bitsandbytes is not installed.
    """
    folder = Path(folder)
    if dtype not in DTYPES:
        raise RequestError(f"dtype: found {dtype!r}; expected one of {', '.join(DTYPES)}")
    _check(folder)
    place = device_of(device)
    options = _quantisation(bits, DTYPES[dtype])
    if options:
        options["device_map"] = {"": str(place)}
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        model = AutoModelForImageTextToText.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, use_safetensors=True,
            dtype=DTYPES[dtype], **options,
        )  # fmt: skip
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{folder.name}: cannot be loaded ({reason}); check that the folder is complete and that this "
            "version of transformers knows the model"
        ) from error
    if not getattr(processor, "chat_template", None):
        raise CheckpointError(
            f"{folder.name}: its processor has no chat template; add the chat_template.jinja of the release"
        )
    if not hasattr(model, "model") or not hasattr(processor, "tokenizer"):
        raise CheckpointError(
            f"{folder.name}: models of type {model.config.model_type} are not supported; expected a language model "
            "that reads pictures as tokens, such as Gemma 3, Qwen-VL, LLaVA or SmolVLM"
        )
    if not options:
        model.to(place)
    return Loaded(model.eval(), processor, revision_of(folder))


def revision_of(folder: Path) -> str:
    """Identify the weights in a folder by 12 hexadecimal digits.

    SHA-256 of the configuration, and of the size, header and 64 evenly spaced samples of each weights file:
    hashing gigabytes at every start would take longer than loading them.
    """
    sha = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        sha.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            sha.update(file.read(min(length, size)))
            for n in range(_SAMPLES):
                file.seek(n * max(0, size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                sha.update(file.read(_SAMPLE_BYTES))
    return sha.hexdigest()[:12]


def model_type_of(folder: Path) -> str | None:
    """Return the model type that a folder's configuration names; CheckpointError if there is none to read."""
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder.name}: found no readable config.json; expected a folder as save_pretrained writes it"
        ) from error


def _check(folder: Path) -> None:
    model_type = model_type_of(folder)
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as FAMILIES,
    )

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if model_type not in FAMILIES:
        if config.get("auto_map"):
            raise CheckpointError(
                f"{folder.name}: needs custom code, which is never run; serve it by vLLM and choose "
                "`openai:` instead, or take a release that transformers knows"
            )
        raise CheckpointError(
            f"{folder.name}: found a model of type {model_type!r}; expected a vision-language model that "
            "transformers knows"
        )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        if pickles:
            raise CheckpointError(
                f"{folder.name}: found weights in a pickle ({pickles[0]}), which can run code and is not "
                "loaded; expected *.safetensors; convert it on a machine that trusts it"
            )
        raise CheckpointError(f"{folder.name}: found no weights; expected *.safetensors")


def _quantisation(bits: int | None, dtype: torch.dtype) -> dict[str, Any]:
    if bits is None:
        return {}
    if bits not in (4, 8):
        raise RequestError(f"bits: found {bits}; expected 4 or 8")
    library("bitsandbytes", "quantised")
    from transformers import BitsAndBytesConfig

    config = (
        BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
        if bits == 4
        else BitsAndBytesConfig(load_in_8bit=True)
    )
    return {"quantization_config": config}
