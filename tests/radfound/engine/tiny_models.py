"""Random vision-language models of real families, small enough to build in a test, as Hugging Face folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from radfound.model.checkpoints import language_model_path

IMAGE = {"llava": "<image>\n", "smolvlm": "<image>", "gemma3": "<start_of_image>"}
IMAGE["qwen2_vl"] = "<|vision_start|><|image_pad|><|vision_end|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}IMAGE{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STOP, PAD, BEGIN = 2, 2, 1


def tokenizer_with(*special: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(language_model_path(), trust_remote_code=False)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


def text_config(tokenizer: Any, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 4096,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,  # tied, a random model repeats its last token
        "bos_token_id": BEGIN,
        "eos_token_id": STOP,
        "pad_token_id": PAD,
        **more,
    }


def vision_config(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": 0.3,
        **more,
    }


def llava() -> tuple[Any, Any]:
    from transformers import (
        CLIPImageProcessor,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = tokenizer_with("<image>")
    config = LlavaConfig(
        vision_config=vision_config(
            model_type="clip_vision_model", image_size=56, patch_size=14, projection_dim=32
        ),
        text_config=text_config(tokenizer, model_type="llama"),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=16,
    )
    images = CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
    )
    return LlavaForConditionalGeneration(config), processor


def smolvlm() -> tuple[Any, Any]:
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    tiles = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    tokenizer = tokenizer_with(
        "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *tiles
    )
    config = SmolVLMConfig(
        vision_config=vision_config(image_size=64, patch_size=16),
        text_config=text_config(tokenizer, model_type="llama"),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
        pad_token_id=PAD,
    )
    size = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 64}}
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(**size, do_image_splitting=True),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(**size),
        image_seq_len=4,
    )
    return SmolVLMForConditionalGeneration(config), processor


def gemma3() -> tuple[Any, Any]:
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
    )

    names = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    tokenizer = tokenizer_with(*names.values())
    tokenizer.init_kwargs.update(names)
    ids = {name: tokenizer.convert_tokens_to_ids(word) for name, word in names.items()}
    for name, word in names.items():
        setattr(tokenizer, name, word)
        setattr(tokenizer, f"{name}_id", ids[name])
    config = Gemma3Config(
        # A window shorter than the prompts of the tests, every second layer with full attention.
        text_config=text_config(
            tokenizer, sliding_window=24, layer_types=["sliding_attention", "full_attention"]
        ),
        vision_config=vision_config(image_size=56, patch_size=14),
        mm_tokens_per_image=4,
        tie_word_embeddings=False,
        **{f"{name}_index": number for name, number in ids.items()},
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": 56, "width": 56}),
        tokenizer=tokenizer,
        image_seq_length=4,
    )
    model = Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.3)
    return model, processor


def qwen2_vl(head: int = 32) -> tuple[Any, Any]:
    """With a head size of 64, vLLM's attention on a CPU takes it too."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    names = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = tokenizer_with(*names)
    start, end, image, video = (tokenizer.convert_tokens_to_ids(name) for name in names)
    config = Qwen2VLConfig(
        text_config=text_config(
            tokenizer,
            hidden_size=2 * head,
            head_dim=head,
            rope_scaling={"type": "mrope", "mrope_section": [head // 8, *[head * 3 // 16] * 2]},
        ),
        vision_config={
            "depth": 2,
            "embed_dim": 2 * head,
            "hidden_size": 2 * head,
            "num_heads": 2 if head == 64 else 4,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "initializer_range": 0.3,
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=28 * 28 * 4, max_pixels=28 * 28 * 16),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
    )
    return Qwen2VLForConditionalGeneration(config), processor


FAMILIES: dict[str, Callable[..., tuple[Any, Any]]] = {
    "llava": llava,
    "gemma3": gemma3,
    "qwen2_vl": qwen2_vl,
    "smolvlm": smolvlm,
}


def build(family: str, folder: Path, **options: Any) -> Path:
    """Save a random model of a family in float32; the same weights at every call."""
    torch.manual_seed(0)
    model, processor = FAMILIES[family](**options)
    processor.chat_template = TEMPLATE.replace("IMAGE", IMAGE[family])
    model.generation_config.eos_token_id = STOP
    model.generation_config.pad_token_id = PAD
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def build_adapter(model_folder: Path, folder: Path, *, scale: float = 0.3, **config: Any) -> Path:
    """Save a LoRA adapter of random weights for a model, as peft writes it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    from radfound.engine.transformers.adapters import TARGETS

    model = AutoModelForImageTextToText.from_pretrained(model_folder, trust_remote_code=False)
    torch.manual_seed(1)
    options = {"r": 2, "target_modules": TARGETS, "task_type": "CAUSAL_LM", **config}
    adapted = get_peft_model(model, LoraConfig(**options))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=scale)
    adapted.save_pretrained(folder)
    return folder
