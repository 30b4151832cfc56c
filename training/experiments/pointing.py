"""Pointing game: whether evidence maps point to the lesion of a phantom.

`python -m training.experiments.pointing` trains a small model to name the lesion's position, which takes some minutes on
one CPU core, and prints how often its evidence maps hit the lesion.
"""

from __future__ import annotations

import argparse
import logging
import time
from itertools import product
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from radfound.benchmark.evidence.phantoms import KINDS, LETTERS, QUESTIONS, phantom
from radfound.benchmark.evidence.pointing import pointing, randomised, table, untrained
from radfound.commands import run_command
from radfound.engine.local.backend import LocalBackend
from radfound.engine.local.model import LocalModel
from radfound.model import checkpoints
from radfound.model.configuration_radfound import RadFoundConfig, RadFoundVisionConfig
from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from radfound.model.processing_radfound import (
    SYSTEM_PROMPT,
    RadFoundImageProcessor,
    RadFoundProcessor,
    pad_frames,
    pad_left,
)
from radfound.study.frames import Frames, make_frames
from training.loop.config import Draw, LoopConfig
from training.loop.optimise import optimise

PHANTOMS = {"2D": 2500, "3D": 1500}
STEPS = 1600
_PICTURES_ONLY = 0.4
_FIRST_TRAINING_SEED = 1_000_000  # evaluation phantoms have smaller seeds
_WORDS = f"{' '.join(QUESTIONS.values())} column row level {' '.join(LETTERS)} 1 2 3 4 5 6 {SYSTEM_PROMPT} system user assistant"


def new_model(
    layers: int = 0, seed: int = 0
) -> tuple[RadFoundForConditionalGeneration, RadFoundProcessor]:
    """Return an untrained model of 0.3 million parameters: 6 by 6 patches, at most 6 frames.

    Parameters
    ----------
    layers : int
        Number of layers within a frame, and of context layers across frames, before the resampler.
    seed : int
    """
    tokenizer = _word_tokenizer()
    image_token = len(tokenizer)  # added by the processor
    images = RadFoundImageProcessor(image_size=48, max_frames=6)
    processor = RadFoundProcessor(images, tokenizer, num_visual_tokens=8)
    vision = RadFoundVisionConfig(
        image_size=48, patch_size=8, stem="patch", hidden_size=64, intermediate_size=128,
        num_hidden_layers=layers, num_context_layers=layers, num_attention_heads=4, initializer_range=0.1,
    )  # fmt: skip
    text = dict(
        model_type="llama", vocab_size=image_token, hidden_size=64, intermediate_size=192,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True, initializer_range=0.1,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    config = RadFoundConfig(
        vision, text, num_visual_tokens=8, num_connector_layers=2, image_token_id=image_token
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RadFoundForConditionalGeneration(config)
    return model, processor


def _word_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with whole words as tokens, so that spelling need not be learnt."""
    special = ["<|im_start|>", "<|im_end|>", "<unk>"]
    words = pre_tokenizers.WhitespaceSplit()
    known = sorted({word for word, _ in words.pre_tokenize_str(_WORDS)})
    backend = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(special + known)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = words
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=special[0],
        eos_token=special[1],
        pad_token=special[1],
        unk_token="<unk>",
    )
    tokenizer.chat_template = checkpoints.CHATML
    return tokenizer


class Questions(nn.Module):
    """Loss of the answers to questions about phantoms; images and volumes alternate.

    Parameters
    ----------
    model : RadFoundForConditionalGeneration
    processor : RadFoundProcessor
    counts : dict of str to int
        Number of phantoms of each kind.
    """

    def __init__(
        self,
        model: RadFoundForConditionalGeneration,
        processor: RadFoundProcessor,
        counts: dict[str, int],
    ):
        super().__init__()
        self.model, self._processor = model, processor
        config = processor.image_processor.frame_config
        self._phantoms: dict[str, list[tuple[Frames, str, str]]] = {}
        for kind, count in counts.items():
            made = (
                phantom(kind, _FIRST_TRAINING_SEED + seed, lesions=1 + seed % 2)
                for seed in range(count)
            )
            self._phantoms[kind] = [
                (make_frames(each.study, config), each.question, each.answer) for each in made
            ]

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean loss of the answer tokens."""
        # Images alone come first: they are quick to process, and volumes profit from them.
        is_early = draw.step < _PICTURES_ONLY * draw.config.steps
        kind = "2D" if is_early else KINDS[draw.step % len(KINDS)]
        batch = draw.chooser().sample(self._phantoms[kind], draw.size)
        prompts = [sum(self._processor.prompt_ids("vqa", question), []) for _, question, _ in batch]
        answers = [self._processor.answer_ids(answer) for _, _, answer in batch]
        inputs = pad_left([p + a for p, a in zip(prompts, answers, strict=True)], 1)
        labels = torch.full_like(inputs["input_ids"], -100)
        for row, answer in zip(labels, answers, strict=True):
            row[-len(answer) :] = torch.tensor(answer)
        inputs |= pad_frames([frames for frames, _, _ in batch])
        loss = self.model(**inputs, labels=labels).loss
        return loss, {f"loss_{kind}": float(loss.detach())}


def train(layers: int = 0, steps: int = STEPS, counts: dict[str, int] | None = None) -> LocalModel:
    """Return a model trained to name the positions of lesions."""
    model, processor = new_model(layers)
    objective = Questions(model, processor, counts or PHANTOMS)
    config = LoopConfig(
        steps=steps, learning_rate=1e-3, batch_size=32, warmup_steps=100, precision="fp32",
        log_every=50,
    )  # fmt: skip
    optimise(objective, {1.0: model.parameters()}, config)
    return LocalModel(model, processor, "pointing", f"{layers} layers")


def report(model: LocalModel, count: int) -> str:
    """Return a model's pointing accuracy, and the correlation of its maps with those of random weights."""
    rows, backend, random_weights = {}, LocalBackend(model), LocalBackend(untrained(model))
    for kind, lesions in product(KINDS, (1, 2)):
        phantoms = [phantom(kind, seed, lesions) for seed in range(count)]
        name = f"{kind}, {lesions} lesion{'s' * (lesions - 1)}"
        rows[name] = pointing(backend, phantoms)
        rows[f"{name}, random weights"] = pointing(random_weights, phantoms)
    lines = [table(rows), "", "Rank correlation of patches with the trained model's maps:", ""]
    for kind in KINDS:
        found = randomised(model, [phantom(kind, seed, 2) for seed in range(min(count, 50))])
        lines.append(
            f"{kind}: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, metavar="DIR", help="save the model in this folder")
    parser.add_argument("--layers", type=int, default=0, help="layers that mix patches; default: 0")
    parser.add_argument("--steps", type=int, default=STEPS, help="default: %(default)s")
    parser.add_argument("--count", type=int, default=200, help="evaluation phantoms of each kind")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    began = time.process_time()
    model = train(args.layers, args.steps)
    learnt_s = time.process_time() - began
    if args.out:
        model.model.save_pretrained(args.out)
        model.processor.save_pretrained(args.out)
    print(
        f"{args.layers} layers that mix patches, {args.steps} steps, {learnt_s:.0f} s of CPU time"
    )
    print(report(model, args.count))


if __name__ == "__main__":
    run_command(main)
