"""Instruction tuning: questions, captions and reports in one mixture.

The vision encoder is frozen and every study is encoded before the first step. The connector is trained, and
the language model too, by LoRA (arXiv 2106.09685) or in full. Run as
`python -m training.stages.instruct --config training/stages/configs/instruct.yaml --data KIT --out DIR`.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from radfound.datasets.example import Example
from radfound.datasets.kit import Kit
from radfound.datasets.texts import radiology_texts
from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from radfound.model.processing_radfound import RadFoundProcessor
from radfound.study.frames import FrameConfig
from training.data.frame_bank import FrameBank, augment
from training.loop.config import Draw
from training.loop.manifest import hash_examples, write_manifest
from training.loop.optimise import optimise
from training.loop.processes import is_first_process
from training.loop.weights import whole_state
from training.lora import lora_config
from training.packing import Branch, branch, pack, packed_loss
from training.stages.common import StageConfig, load_parts, save_parts, stage_examples, stage_model
from training.stages.config import run_stage
from training.stages.grounding import ground, slot_words, words_loss

logger = logging.getLogger(__name__)

LANGUAGE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


@dataclass(frozen=True, kw_only=True)
class InstructConfig(StageConfig):
    """Settings of the stage, in addition to `StageConfig`.

    Parameters
    ----------
    vision : Path
        `vision.safetensors` of alignment.
    adapter : {"lora", "full"}
        Train the language model by LoRA or in full.
    rank : int
        Rank of LoRA.
    connector_factor : float
        Learning rate of the connector relative to the language model's; 0 freezes it.
    tokens_per_study : int
        Approximate number of question and answer tokens of one study in one step.
    views : int
        Number of encodings of each study: one unchanged, the others augmented.
    vqa_repeats : int
        Repetitions in an epoch of an image with several questions of its own.
    ground_steps : int
        Steps of grounding before instruction tuning (training/stages/grounding.py).
    words : float
        Loss weight of the grounding of the first visual tokens (training/stages/grounding.py).
    wording : float
        Loss weight of plain radiology text without a study.
    """

    vision: Path
    adapter: str = "lora"
    rank: int = 32
    connector_factor: float = 0.3
    tokens_per_study: int = 100
    views: int = 2
    vqa_repeats: int = 3
    ground_steps: int = 600
    words: float = 0.3
    wording: float = 0.1


def merge_by_image(examples: Sequence[Example]) -> list[Example]:
    """Merge examples of different sources about the same files."""
    merged: dict[tuple[tuple[Path, ...], str], Example] = {}
    for example in examples:
        key = (example.files, repr(example.region))
        if known := merged.get(key):
            new = tuple(turn for turn in example.turns if turn not in known.turns)
            example = replace(
                known, turns=known.turns + new, labels={**example.labels, **known.labels}
            )
        merged[key] = example
    return list(merged.values())


def kit_examples(kit: Kit) -> list[Example]:
    """Return the kit's training examples: questions, captions, reports."""
    return [
        *kit.medpix_figures(),
        *kit.vqa(),
        *kit.medpix_cases(max_images=2),
        *kit.radiographs(every_nth_small=6),
        *kit.mammograms(),
        *kit.volumes(slices_per_plane=6),
    ]


def held_examples(kit: Kit) -> list[Example]:
    """Return the kit's figures and questions for validation."""
    return [*kit.medpix_figures("validation"), *kit.vqa("validation")]


def conversations(examples: Sequence[Example]) -> list[Example]:
    """Return the examples with turns, merged to one for each image."""
    return merge_by_image([e for e in examples if e.turns])


class EncodedStudies:
    """Examples whose frames are encoded by the frozen vision encoder.

    Parameters
    ----------
    examples : sequence of Example
    model : RadFoundForConditionalGeneration
    views : int
        Number of encodings of each study; all but the first are augmented.
    seed : int
    """

    def __init__(
        self,
        examples: Sequence[Example],
        model: RadFoundForConditionalGeneration,
        views: int = 1,
        seed: int = 0,
    ):
        bank = FrameBank(examples, FrameConfig(model.config.vision_config.image_size, max_frames=8))
        self.examples = bank.examples
        self.first: dict[int, int] = {}  # examples with the same frames share an encoding
        self.views: list[list[torch.Tensor]] = []
        for view in range(views):
            generator = torch.Generator().manual_seed(seed * 1009 + view) if view else None
            self.views.append(self._encoded(bank, model, generator))

    def __len__(self) -> int:
        return len(self.examples)

    def hidden(self, indices: Sequence[int], view: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return padded hidden states (B, F, N, width) and the frame mask (B, F) of B studies."""
        states = [self.views[view][i] for i in indices]
        most = max(map(len, states))
        padded = [torch.cat([h, h.new_zeros(most - len(h), *h.shape[1:])]) for h in states]
        mask = torch.tensor([[n < len(h) for n in range(most)] for h in states])
        return torch.stack(padded), mask

    @torch.no_grad()
    def _encoded(
        self,
        bank: FrameBank,
        model: RadFoundForConditionalGeneration,
        generator: torch.Generator | None,
    ) -> list[torch.Tensor]:
        vision = model.vision_model
        owner = torch.zeros(len(bank.pixels), dtype=torch.long)
        for number, rows in enumerate(bank.rows):
            owner[rows] = number
        features = []
        for rows in tqdm(torch.arange(len(bank.pixels)).split(32), desc="encoding", leave=False):
            pixels = bank.pixels[rows]
            moved = augment(pixels, generator) if generator else pixels.float() / 255.0
            with torch.autocast(vision.device.type, torch.bfloat16):
                features.append(vision.stem_features(moved.to(vision.device)).to(torch.bfloat16))
        stem = torch.cat(features)
        known: dict[int, torch.Tensor] = {}
        encoded = []
        for rows in bank.rows:
            if int(rows[0]) not in known:
                with torch.autocast(vision.device.type, torch.bfloat16):
                    known[int(rows[0])] = (
                        vision(
                            stem_features=stem[rows][None],
                            positions_mm=bank.positions_mm[rows][None].to(vision.device),
                            planes=bank.planes[rows][None].to(vision.device),
                            views=bank.views[rows][None].to(vision.device),
                        )
                        .last_hidden_state[0]
                        .to("cpu", torch.bfloat16)
                    )
            encoded.append(known[int(rows[0])])
        return encoded


class InstructObjective(nn.Module):
    """Cross-entropy of the answers to questions drawn for each study of a step.

    Parameters
    ----------
    model : RadFoundForConditionalGeneration
    processor : RadFoundProcessor
    studies : EncodedStudies
    order : sequence of int
        Indices of the studies of an epoch, with repetitions.
    texts : sequence of str
        Plain radiology texts; may be empty.
    config : InstructConfig
    """

    def __init__(
        self,
        model: RadFoundForConditionalGeneration,
        processor: RadFoundProcessor,
        studies: EncodedStudies,
        order: Sequence[int],
        texts: Sequence[str],
        config: InstructConfig,
    ):
        super().__init__()
        self.model, self.processor, self.studies = model, processor, studies
        self.order, self.texts, self.config = order, texts, config
        self.prefix = processor.prompt_ids("caption", None)[0]
        self.words = torch.tensor([slot_words(processor, e.labels) for e in studies.examples])
        self.turns = [
            [turn_branches(processor, turn) for turn in example.turns]
            for example in studies.examples
        ]

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a step's studies and its parts."""
        chooser = draw.chooser()
        indices = [self.order[n] for n in draw.indices(len(self.order))]
        chosen = [self.branches(i, chooser) for i in indices]
        view = chooser.randrange(len(self.studies.views))
        parts = self.losses(self.studies, indices, chosen, view)
        weights = {"answers": 1.0, "words": self.config.words, "wording": self.config.wording}
        if self.config.wording and self.texts:
            parts["wording"] = self._wording(chooser)
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return total, {name: part.item() for name, part in parts.items()}

    def losses(
        self,
        studies: EncodedStudies,
        indices: Sequence[int],
        chosen: Sequence[Sequence[Branch]],
        view: int = 0,
    ) -> dict[str, torch.Tensor]:
        """Return the losses of the answers `chosen` about studies, and of the grounding."""
        device = self.model.device
        hidden, mask = studies.hidden(indices, view)
        connector = self.model.connector
        visual = connector(hidden.to(device, connector.queries.dtype), mask.to(device))
        packed = pack(self.prefix, chosen, self.processor.tokenizer.pad_token_id).to(device)
        parts = {"answers": packed_loss(self.model, packed, visual)}
        if self.config.words and studies is self.studies:
            embedding = self.model.get_input_embeddings().weight.detach().float()
            words = self.words[list(indices)].to(device)
            parts["words"] = words_loss(visual.float(), words, embedding)
        return parts

    def branches(self, index: int, chooser: random.Random) -> list[Branch]:
        """Draw turns of a study, one wording each, up to `tokens_per_study`."""
        turns = self.turns[index]
        drawn: list[Branch] = []
        left = self.config.tokens_per_study
        for turn in chooser.sample(turns, len(turns)):
            wording = chooser.choice(turn)
            size = packed_length([wording])
            if drawn and size > left:
                continue
            drawn.append(wording)
            left -= size
        return drawn

    def _wording(self, chooser: random.Random, rows: int = 2, tokens: int = 64) -> torch.Tensor:
        ids = [self.processor.text_ids(chooser.choice(self.texts))[:tokens] for _ in range(rows)]
        longest = max(map(len, ids))
        batch = torch.tensor([row + [-100] * (longest - len(row)) for row in ids])
        batch = batch.to(self.model.device)
        logits = self.model.language_model(input_ids=batch.clamp(min=0)).logits
        return F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), batch[:, 1:].flatten(), ignore_index=-100
        )

    @torch.no_grad()
    def evaluate(self, held: EncodedStudies, size: int = 8) -> dict[str, float]:
        """Return the mean loss of the first turns of held-out studies."""
        turns = [
            [turn_branches(self.processor, turn)[0] for turn in example.turns[:8]]
            for example in held.examples
        ]
        # Studies of similar length need little padding.
        order = sorted(range(len(held)), key=lambda i: packed_length(turns[i]))
        total = 0.0
        for batch in (order[start : start + size] for start in range(0, len(order), size)):
            parts = self.losses(held, batch, [turns[i] for i in batch])
            total += len(batch) * parts["answers"].item()
        return {"loss": total / len(held)}


def packed_length(branches: Sequence[Branch]) -> int:
    """Return the number of tokens of a study's questions and answers."""
    return sum(len(b.question) + len(b.answer) for b in branches)


def turn_branches(processor: RadFoundProcessor, turn) -> list[Branch]:
    """Tokenise each wording of a turn."""
    return [
        branch(processor, turn.task, question, turn.answer)
        for question in turn.questions or (None,)
    ]


def instruct(config: InstructConfig) -> dict[str, float]:
    """Train, then write `model.safetensors` (vision encoder and connector) and `adapter/`."""
    set_seed(config.loop.seed)
    examples = conversations(stage_examples(config, kit_examples))
    held = conversations(stage_examples(config, held_examples, "validation"))
    model, processor = stage_model(config.model, config.language_model)
    load_parts(config.vision, model)
    model.requires_grad_(False)
    studies = EncodedStudies(examples, model, config.views, config.loop.seed)
    validation = EncodedStudies(held, model) if held else None
    order = [
        index
        for index, example in enumerate(studies.examples)
        for _ in range(config.vqa_repeats if any(t.id for t in example.turns) else 1)
    ]
    if config.ground_steps:
        grounded = ground_projector(model, processor, studies, config)
        logger.info("accuracy of grounded words: %s", grounded)
    groups = learning_parts(model, config)
    texts = list(radiology_texts(Kit(config.data))) if config.data and config.wording else []
    objective = InstructObjective(model, processor, studies, order, texts, config)
    history = optimise(
        objective.train(),
        groups,
        config.loop,
        folder=config.out,
        validate=(lambda: objective.evaluate(validation)) if validation else None,
    )
    files = save(model, config.out, config.language_model or LANGUAGE_MODEL)
    write_manifest(
        config.out,
        stage="instruct",
        config=config,
        data_hash=hash_examples(studies.examples),
        metrics=history[-1],
        files=files,
    )
    return history[-1]


def ground_projector(
    model: RadFoundForConditionalGeneration,
    processor: RadFoundProcessor,
    studies: EncodedStudies,
    config: InstructConfig,
) -> dict[str, float]:
    """Ground the projector on the labelled studies of one frame."""
    single = [
        index
        for index, example in enumerate(studies.examples)
        if example.labels and len(studies.views[0][index]) == 1
    ]
    resampled = []
    for start in range(0, len(single), 64):
        hidden, mask = studies.hidden(single[start : start + 64], 0)
        with torch.no_grad():
            resampled.append(model.connector.resample(hidden.float(), mask))
    words = torch.tensor([slot_words(processor, studies.examples[i].labels) for i in single])
    embedding = model.get_input_embeddings().weight.detach().float()
    shares = ground(
        model.connector.projector,
        torch.cat(resampled),
        words,
        embedding,
        steps=config.ground_steps,
        seed=config.loop.seed,
    )
    model.requires_grad_(False)
    return shares


def learning_parts(
    model: RadFoundForConditionalGeneration, config: InstructConfig
) -> dict[float, list[nn.Parameter]]:
    """Add an adapter to the language model, or unfreeze it; return trainable parameters by rate factor."""
    if config.adapter == "lora":
        # The upper two thirds of the layers, so that no gradient is computed below them.
        layers = model.config.text_config.num_hidden_layers
        upper = lora_config(config.rank, range(layers // 3, layers))
        model.language_model = get_peft_model(model.language_model, upper)
    else:
        model.language_model.float().requires_grad_(True)
    groups = {1.0: [p for p in model.language_model.parameters() if p.requires_grad]}
    if config.connector_factor:
        model.connector.requires_grad_(True)
        connector = list(model.connector.parameters())
        groups.setdefault(config.connector_factor, []).extend(connector)
    return groups


def save(
    model: RadFoundForConditionalGeneration, out: Path, language_model: str = LANGUAGE_MODEL
) -> list[str]:
    """Save vision encoder and connector in bfloat16, and the adapter in peft's format.

    A language model that was trained in full is saved with them. Every process must call this; the first one
    writes. `python -m training.stages.merge` makes one checkpoint folder of the files.

    Returns
    -------
    list of str
        Names of the files in `out`.
    """
    parts = {"vision_model": model.vision_model, "connector": model.connector}
    adapted = isinstance(model.language_model, PeftModel)
    if not adapted:
        parts["language_model"] = model.language_model
    save_parts(out / "model.safetensors", parts)
    if is_first_process():
        (out / "config.json").write_text(model.config.to_json_string(use_diff=False))
    return [
        "model.safetensors",
        "config.json",
        *(save_adapter(model, out, language_model) if adapted else ()),
    ]


def save_adapter(
    model: RadFoundForConditionalGeneration, out: Path, language_model: str
) -> list[str]:
    """Save the adapter of a language model in bfloat16."""
    state = whole_state(model.language_model)
    adapter = out / "adapter" / "adapter_model.safetensors"
    settings = adapter.with_name("adapter_config.json")
    if is_first_process():
        model.language_model.save_pretrained(
            adapter.parent, state_dict=state, save_embedding_layers=False
        )
        halved = {name: t.to(torch.bfloat16) for name, t in load_file(adapter).items()}
        save_file(halved, adapter, metadata={"format": "pt"})
        # peft saves the base model's local path; keep its name only.
        known = json.loads(settings.read_text())
        known["base_model_name_or_path"] = (
            Path(language_model).name if Path(language_model).exists() else language_model
        )
        settings.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    return [f"adapter/{adapter.name}", f"adapter/{settings.name}"]


def main() -> None:
    """Command line."""
    run_stage("instruct", InstructConfig, instruct, __doc__)


if __name__ == "__main__":
    main()
