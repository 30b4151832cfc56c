"""Instruction tuning: questions, captions and reports in one mixture.

The stem is frozen and has run once over every frame; the rest of the vision encoder, the connector and a
LoRA adapter (arXiv 2106.09685) on the language model learn together. Run as
`python -m training.instruct --data KIT --vision DIR/vision.safetensors --out DIR`.
"""

from __future__ import annotations

import argparse
import logging
import random
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from radfound.checkpoints import mini_processor, new_mini_model
from radfound.frames import FrameConfig
from radfound.modeling_radfound import RadFoundForConditionalGeneration
from training.datasets import Example, Kit
from training.framebank import FrameBank, augment, stem_features
from training.loop import LoopConfig, epoch_order, optimise
from training.packing import Branch, branch, pack, packed_loss

logger = logging.getLogger(__name__)

MOST_TURNS = 4  # of one study in a step
LORA_TARGETS = ["q_proj", "v_proj", "o_proj", "down_proj"]


def lora_config(rank: int) -> LoraConfig:
    """Return the LoRA settings that every adapter of a model shares.

    peft swaps an adapter in place only where its targets are those of the first: they are fixed here.
    """
    return LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=LORA_TARGETS,
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
    """Stem features of every example's frames in memory, and branches drawn from its turns.

    Parameters
    ----------
    examples : list of Example
    model : RadFoundForConditionalGeneration
        Whose stem is used, once.
    processor : RadFoundProcessor
    copies : int
        Augmented copies of each frame to hold beside the plain one.
    """

    def __init__(
        self,
        examples: list[Example],
        model: RadFoundForConditionalGeneration,
        processor,
        copies: int,
    ):
        self.processor = processor
        self.bank = FrameBank(examples, FrameConfig(max_frames=8))
        parts = [stem_features(model.vision_model, self.bank.pixels)]
        for copy in range(copies):
            generator = torch.Generator().manual_seed(copy)
            chunks = [
                stem_features(model.vision_model, (augment(chunk, generator) * 255).to(torch.uint8))
                for chunk in self.bank.pixels.split(64)
            ]
            parts.append(torch.cat(chunks))
        self.features = torch.stack(parts)
        self.prefix = processor.prompt_ids("caption", None)[0]

    def __len__(self) -> int:
        return len(self.bank)

    def vision_inputs(
        self, indices: list[int], limit: int, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Return the vision model's inputs for a batch, padded to its largest number of frames."""
        rows = [self.bank.frames_of(i, limit, generator) for i in indices]
        most = max(map(len, rows))
        copy = torch.randint(len(self.features), (len(rows),), generator=generator)
        feature_shape = self.features.shape[2:]
        stem = self.features.new_zeros(len(rows), most, *feature_shape)
        mask = torch.zeros(len(rows), most, dtype=torch.bool)
        places = torch.zeros(len(rows), most, 3)
        planes, views = torch.zeros(2, len(rows), most, dtype=torch.long)
        for n, these in enumerate(rows):
            count = len(these)
            stem[n, :count] = self.features[copy[n], these]
            mask[n, :count] = True
            places[n, :count] = self.bank.positions_mm[these]
            if (
                torch.rand((), generator=generator) < 0.5
            ):  # half the time the plane must be seen, not told
                planes[n, :count], views[n, :count] = (
                    self.bank.planes[these],
                    self.bank.views[these],
                )
        return {
            "stem_features": stem,
            "frame_mask": mask,
            "positions_mm": places,
            "planes": planes,
            "views": views,
        }

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
    data: Path, vision: Path, out: Path, config: LoopConfig, batch_size: int, rank: int, copies: int
) -> None:
    """Train, then write `model.safetensors` (vision encoder and connector) and `adapter/` into `out`."""
    kit = Kit(data)
    examples = merge_by_image(
        [*kit.medpix_figures(), *kit.vqa(), *kit.medpix_cases(), *kit.radiographs(every_nth_small=6), *kit.mammograms(),
         *kit.volumes(slices_per_plane=6)]
    )  # fmt: skip
    examples = [example for example in examples if example.turns]
    model = new_mini_model(with_language_model=True)
    model.load_state_dict(load_file(vision), strict=False)
    processor = mini_processor()
    source = InstructionData(examples, model, processor, copies)
    model.requires_grad_(False)
    model.language_model = get_peft_model(model.language_model, lora_config(rank))
    learned = [
        *model.vision_model.stem_projection.parameters(), model.vision_model.patch_position,
        *model.vision_model.layers.parameters(), *model.vision_model.frame_norm.parameters(),
        *model.vision_model.place.parameters(), *model.vision_model.context_layers.parameters(),
        *model.vision_model.norm.parameters(),
    ]  # fmt: skip
    connector = list(model.connector.parameters())
    for parameter in (*learned, *connector):
        parameter.requires_grad_(True)
    adapter = [p for p in model.language_model.parameters() if p.requires_grad]
    pad = processor.tokenizer.pad_token_id

    def loss_of(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        seed = config.seed * 1_000_003 + step
        generator, chooser = torch.Generator().manual_seed(seed), random.Random(seed)
        indices = epoch_order(len(source), step, batch_size, config.seed)
        inputs = source.vision_inputs(indices, 4, generator)
        packed = pack(
            source.prefix, [source.branches(i, MOST_TURNS, chooser) for i in indices], pad
        )
        with torch.autocast("cpu", torch.bfloat16):
            loss = packed_loss(model, packed, model.get_image_features(**inputs))
        return loss, {"tokens": float(packed.input_ids.numel())}

    optimise(
        model,
        {0.3: learned, 1.0: [*connector, *adapter]},
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
    (out / "config.json").write_text(model.config.to_json_string(use_diff=False))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--vision", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--copies", type=int, default=2, help="augmented copies of each frame")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = LoopConfig(
        args.steps, args.learning_rate, seed=args.seed, checkpoint_every=100, log_every=10
    )
    instruct(args.data, args.vision, args.out, config, args.batch_size, args.rank, args.copies)


if __name__ == "__main__":
    main()
