"""First token of a follow-up about a 16-slice study, beside plain processor and generate.

A SmolVLM of the 256M's real size with random weights: neither a hub nor a download is needed. Only the ratio is
comparable between machines.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from radfound.engine.shown import Picture, Shown
from radfound.engine.transformers.backend import TransformersBackend
from radfound.model.checkpoints import language_model_path
from radfound.question import Question
from radfound.study.study import Study, StudyImage

TARGET = 10
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def main() -> int:
    """Print the medians and their ratio; return 1 if it is below the target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    voxels = np.random.default_rng(0).integers(-1000, 1000, (args.slices, 512, 512))
    image = StudyImage(
        voxels.astype(np.int16), np.diag([-0.7, -0.7, 5.0, 1.0]), "CT", hounsfield=True
    )
    study = Study((image,))
    with tempfile.TemporaryDirectory(prefix="radfound-") as folder:
        build_smolvlm_256m(Path(folder) / "smolvlm-256m-random")
        backend = TransformersBackend.load(Path(folder) / "smolvlm-256m-random", device=args.device)
    try:
        first = seconds(lambda: first_token(backend, study, "What is shown?"))
        follow_ups = [
            seconds(lambda n=n: first_token(backend, study, f"Is there finding {n} in the chest?"))
            for n in range(args.repeats)
        ]
        plain = [seconds(lambda: plain_first_token(backend, study)) for _ in range(args.repeats)]
    finally:
        backend.close()
    beside, ours = statistics.median(plain), statistics.median(follow_ups)
    print(
        f"first question {first:.2f} s; follow-up {ours:.3f} s; plain processor and generate {beside:.2f} s"
    )
    print(f"first token of a follow-up: {beside / ours:.0f} times sooner (target {TARGET})")
    return beside / ours < TARGET


def seconds(function: Any) -> float:
    """Return how long a call takes."""
    began = time.monotonic()
    function()
    return time.monotonic() - began


def first_token(backend: TransformersBackend, study: Study, text: str) -> None:
    """Wait for the first token of an answer, then cancel it."""
    stream = backend.stream(study, Question(text=text), adapter=None, limit=8)
    next(iter(stream))
    stream.cancel()


def plain_first_token(backend: TransformersBackend, study: Study) -> None:
    """Do what a script without this package does for each question, given the same pictures."""
    question = Question(text="Is there an effusion?")
    shown: Shown = backend.recipe.show(study, question)
    content = [
        {"type": "image", "image": Image.fromarray(part.pixels)}
        if isinstance(part, Picture)
        else {"type": "text", "text": part}
        for part in shown.parts
    ]
    content.append({"type": "text", "text": question.text})
    inputs = backend.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True,
        return_dict=True, return_tensors="pt", processor_kwargs=backend.recipe.processing,
    ).to(backend.model.device, backend.model.dtype)  # fmt: skip
    backend.model.generate(**inputs, max_new_tokens=1, do_sample=False)


def build_smolvlm_256m(folder: Path) -> None:
    """Save a model with the shape of HuggingFaceTB/SmolVLM-256M-Instruct and random weights."""
    from transformers import (
        AutoTokenizer,
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    tokenizer = AutoTokenizer.from_pretrained(language_model_path(), trust_remote_code=False)
    tiles = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    marks = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tokenizer.add_special_tokens({"additional_special_tokens": [*marks, *tiles]})
    config = SmolVLMConfig(
        vision_config={
            "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
            "num_attention_heads": 12, "image_size": 512, "patch_size": 16,
        },
        text_config={
            "model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 576,
            "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
            "num_key_value_heads": 3, "head_dim": 64, "max_position_embeddings": 8192,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), scale_factor=4, pad_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = SmolVLMForConditionalGeneration(config).to(torch.bfloat16)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = 2
    size = {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}}
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(**size),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(**size),
        image_seq_len=64,
        chat_template=TEMPLATE,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
