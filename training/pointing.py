"""A small model that learns to say where a phantom's lesion is, to see whether evidence maps point to it.

`python -m training.pointing --out DIR` trains it, which takes some minutes on one CPU core, and prints where its
maps point. What it learnt stays in DIR as a checkpoint.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from radfound import checkpoints
from radfound.benchmark.phantoms import KINDS, LETTERS, WHERE, phantom
from radfound.configuration_radfound import RadFoundConfig, RadFoundVisionConfig
from radfound.frames import Frames, make_frames
from radfound.modeling_radfound import RadFoundForConditionalGeneration
from radfound.processing_radfound import (
    SYSTEM_PROMPT,
    RadFoundImageProcessor,
    RadFoundProcessor,
    pad_frames,
    pad_left,
)
from training.loop import Draw, LoopConfig, optimise

PHANTOMS = {"2D": 3000, "3D": 1500}
WORDS = (
    f"{WHERE} column row level {' '.join(LETTERS)} 1 2 3 4 5 6",
    f"{SYSTEM_PROMPT} system user assistant",
)
_PICTURES_ONLY = 0.5
_FIRST_TRAINING_SEED = 1_000_000  # the phantoms that are pointed at have smaller ones


def new_model(seed: int = 0) -> tuple[RadFoundForConditionalGeneration, RadFoundProcessor]:
    """Return a model of 0.4 million parameters that has learnt nothing: 6 by 6 patches, at most 6 frames."""
    tokenizer = _word_tokenizer()
    image_token = len(tokenizer)  # which the processor adds
    images = RadFoundImageProcessor(image_size=48, max_frames=6)
    processor = RadFoundProcessor(images, tokenizer, num_visual_tokens=8)
    vision = RadFoundVisionConfig(
        image_size=48, patch_size=8, stem="patch", hidden_size=64, intermediate_size=128,
        num_hidden_layers=1, num_context_layers=1, num_attention_heads=4, initializer_range=0.1,
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
    """Return a tokenizer whose tokens are words, so that there is little to learn about spelling."""
    special = ["<|im_start|>", "<|im_end|>", "<unk>"]
    words = pre_tokenizers.WhitespaceSplit()
    known = sorted({word for word, _ in words.pre_tokenize_str(" ".join(WORDS))})
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
    """Loss of the answers to questions about phantoms; pictures and volumes take turns.

    Parameters
    ----------
    model : RadFoundForConditionalGeneration
    processor : RadFoundProcessor
    counts : dict of str to int
        How many phantoms of each kind there are.
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
        self._seen: dict[str, list[tuple[Frames, str]]] = {}
        for kind, count in counts.items():
            made = (phantom(kind, _FIRST_TRAINING_SEED + seed) for seed in range(count))
            self._seen[kind] = [(make_frames(each.study, config), each.where) for each in made]

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the mean loss of an answer's tokens."""
        # Pictures alone come first: they are quick to read, and what they teach serves volumes too.
        is_early = draw.step < _PICTURES_ONLY * draw.config.steps
        kind = "2D" if is_early else KINDS[draw.step % len(KINDS)]
        some = draw.chooser().sample(self._seen[kind], draw.size)
        answers = [self._processor.answer_ids(where) for _, where in some]
        prompt = sum(self._processor.prompt_ids("vqa", WHERE), [])
        inputs = pad_left([prompt + answer for answer in answers], 1)
        labels = torch.full_like(inputs["input_ids"], -100)
        for row, answer in zip(labels, answers, strict=True):
            row[-len(answer) :] = torch.tensor(answer)
        inputs |= pad_frames([frames for frames, _ in some])
        loss = self.model(**inputs, labels=labels).loss
        return loss, {f"loss_{kind}": float(loss.detach())}


def train(
    model: RadFoundForConditionalGeneration,
    processor: RadFoundProcessor,
    steps: int,
    counts: dict[str, int] | None = None,
) -> None:
    """Teach a model where lesions are."""
    objective = Questions(model, processor, counts or PHANTOMS)
    config = LoopConfig(
        steps=steps,
        learning_rate=1e-3,
        batch_size=32,
        warmup_steps=100,
        precision="fp32",
        log_every=50,
    )
    optimise(objective, {1.0: model.parameters()}, config)
    model.eval()
