"""Instruction tuning: questions, captions and reports in one mixture.

The connector is grounded first (training/ground.py); then vision encoder and connector are frozen, every
study is encoded once, and a LoRA adapter (arXiv 2106.09685) on the language model learns. Run as
`python -m training.instruct --data KIT --vision DIR/vision.safetensors --out DIR`.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from radfound.checkpoints import mini_processor, new_mini_model
from radfound.datasets import Example, Kit
from radfound.frames import FrameConfig
from radfound.modeling_radfound import RadFoundForConditionalGeneration
from radfound.processing_radfound import RadFoundProcessor
from training.framebank import FrameBank, stem_features
from training.ground import ground
from training.loop import LoopConfig, epoch_order, optimise
from training.packing import Branch, branch, pack, packed_loss

logger = logging.getLogger(__name__)

LANGUAGE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MOST_TURNS = 4  # of one study in a step
LORA_TARGETS = ["q_proj", "v_proj", "o_proj", "down_proj"]


def lora_config(model: RadFoundForConditionalGeneration, rank: int) -> LoraConfig:
    """Return the LoRA settings that every adapter of a model shares.

    The upper two thirds of the layers learn: the gradient need not go further down, which saves a third
    of it. peft swaps an adapter in place only where its targets are those of the first.
    """
    layers = model.config.text_config.num_hidden_layers
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=LORA_TARGETS,
        layers_to_transform=list(range(layers // 3, layers)),
        task_type="CAUSAL_LM",
    )


def merge_by_image(examples: list[Example]) -> list[Example]:
    """Bring the questions that different sources ask about the same files together."""
    merged: dict[tuple[tuple[Path, ...], str], Example] = {}
    for example in examples:
        key = (example.files, repr(example.region))
        if key in merged:
            known = merged[key]
            turns = known.turns + tuple(turn for turn in example.turns if turn not in known.turns)
            example = Example(
                known.key,
                known.files,
                turns,
                known.labels,
                known.text,
                known.source,
                known.split,
                known.footer,
                known.region,
            )
        merged[key] = example
    return list(merged.values())


class InstructionData:
    """Examples' frames, encoded, and branches drawn from their turns.

    Parameters
    ----------
    examples : list of Example
    model : RadFoundForConditionalGeneration
        Whose stem runs once over every frame.
    processor : RadFoundProcessor
    """

    def __init__(
        self,
        examples: list[Example],
        model: RadFoundForConditionalGeneration,
        processor: RadFoundProcessor,
    ):
        self.processor = processor
        self.bank = FrameBank(examples, FrameConfig(max_frames=8))
        self.features = stem_features(model.vision_model, self.bank.pixels)
        self.prefix = processor.prompt_ids("caption", None)[0]

    def __len__(self) -> int:
        return len(self.bank)

    @torch.no_grad()
    def visual_tokens(self, model: RadFoundForConditionalGeneration) -> torch.Tensor:
        """Return the visual tokens of every example, shape (examples, num_visual_tokens, text width)."""
        parts = []
        for rows in tqdm(self.bank.rows, desc="encoding", unit="study", leave=False):
            with torch.autocast("cpu", torch.bfloat16):
                tokens = model.get_image_features(
                    stem_features=self.features[rows][None],
                    positions_mm=self.bank.positions_mm[rows][None],
                    planes=self.bank.planes[rows][None],
                    views=self.bank.views[rows][None],
                )
            parts.append(tokens.to(torch.bfloat16))
        return torch.cat(parts)

    def branches(self, index: int, most: int, chooser: random.Random) -> list[Branch]:
        """Draw at most `most` turns of an example, each in one of its wordings."""
        turns = list(self.bank.examples[index].turns)
        chosen = chooser.sample(turns, min(most, len(turns)))
        return [
            branch(
                self.processor,
                turn.task,
                chooser.choice(turn.questions) if turn.questions else None,
                turn.answer,
            )
            for turn in chosen
        ]


def instruct(
    data: Path, vision: Path, out: Path, config: LoopConfig, batch_size: int, rank: int
) -> None:
    """Train, then write `model.safetensors` (vision encoder and connector) and `adapter/` into `out`."""
    kit = Kit(data)
    sources = (
        kit.medpix_figures(),
        kit.vqa(),
        kit.medpix_cases(max_images=2),
        kit.radiographs(every_nth_small=6),
        kit.mammograms(),
        kit.volumes(slices_per_plane=6),
    )
    examples = merge_by_image(
        [example for source in sources for example in source if example.turns]
    )
    model = new_mini_model(with_language_model=True)
    model.load_state_dict(load_file(vision), strict=False)
    model.requires_grad_(False)
    processor = mini_processor()
    source = InstructionData(examples, model, processor)
    single = [
        n
        for n, rows in enumerate(source.bank.rows)
        if len(rows) == 1 and source.bank.examples[n].labels
    ]
    frames = torch.cat([source.bank.rows[n] for n in single])
    labels = [source.bank.examples[n].labels for n in single]
    shares = ground(model, processor, source.features[frames], labels)
    logger.info("words read off the visual tokens: %s", shares)
    model.requires_grad_(False)
    visual = source.visual_tokens(model)
    model.language_model = get_peft_model(model.language_model, lora_config(model, rank))
    adapter = [p for p in model.language_model.parameters() if p.requires_grad]
    pad = processor.tokenizer.pad_token_id

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        chooser = random.Random(config.seed * 1_000_003 + step)
        indices = epoch_order(len(source), step, batch_size, config.seed)
        packed = pack(
            source.prefix, [source.branches(i, MOST_TURNS, chooser) for i in indices], pad
        )
        with torch.autocast("cpu", torch.bfloat16):
            loss = packed_loss(model, packed, visual[indices])
        return loss, {"tokens": float(packed.input_ids.numel())}

    optimise(
        model,
        {1.0: adapter},
        loss_of,
        config,
        folder=out,
        progress=lambda p: logger.info(
            "%d/%d loss %.3f, %.0f s left", p.step, p.total, p.loss, p.seconds_left
        ),
    )
    save(model, out)


def save(model: RadFoundForConditionalGeneration, out: Path) -> None:
    """Write what ships: vision encoder and connector in bfloat16, and the adapter in peft's form."""
    state = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name.startswith(("vision_model.", "connector."))
        and not name.endswith("num_batches_tracked")
    }
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    assert isinstance(model.language_model, PeftModel)
    model.language_model.save_pretrained(out / "adapter", save_embedding_layers=False)
    adapter = out / "adapter" / "adapter_model.safetensors"
    save_file(
        {name: t.to(torch.bfloat16) for name, t in load_file(adapter).items()},
        adapter,
        metadata={"format": "pt"},
    )
    # peft writes where the base model lay on this machine; say what it is instead.
    settings = out / "adapter" / "adapter_config.json"
    fields = json.loads(settings.read_text()) | {"base_model_name_or_path": LANGUAGE_MODEL}
    settings.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    (out / "config.json").write_text(model.config.to_json_string(use_diff=False))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vision", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = LoopConfig(
        args.steps, args.learning_rate, seed=args.seed, checkpoint_every=100, log_every=10
    )
    instruct(args.data, args.vision, args.out, config, args.batch_size, args.rank)


if __name__ == "__main__":
    main()
