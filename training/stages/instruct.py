"""Instruction tuning: questions, captions and reports in one mixture.

The vision encoder is frozen and every study is encoded before the first step. The connector is trained, and
the language model too, by LoRA (arXiv 2106.09685) or in full. A question of an image of its own should be answered
better with it than with another of the same labels; otherwise a small language model learns the question by heart. Run as
`python -m training.stages.instruct --config training/stages/configs/instruct.yaml --data KIT --out DIR`.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from radfound.benchmark.scoring.rank import effective_rank
from radfound.datasets.example import Example
from radfound.datasets.kit import Kit
from radfound.datasets.texts import radiology_texts
from radfound.model.modeling_radfound import RadFoundConnector, RadFoundForConditionalGeneration
from radfound.model.processing_radfound import RadFoundProcessor
from radfound.study.frames import FrameConfig
from training.data.frame_bank import FrameBank, augment
from training.fields.turns import labelled_pictures
from training.loop.config import Draw
from training.loop.manifest import hash_examples, write_manifest
from training.loop.optimise import optimise
from training.loop.processes import is_first_process
from training.loop.weights import whole_state
from training.lora import lora_config
from training.packing import Branch, branch, pack, packed_losses
from training.stages.align import caption_embeddings
from training.stages.common import StageConfig, load_parts, save_parts, stage_examples, stage_model
from training.stages.config import run_stage
from training.stages.grid import GridObjective, align_grid
from training.stages.grounding import ground, slot_words, words_loss

logger = logging.getLogger(__name__)

_SWAPPED = 3  # questions of a study that are also asked of another image
_MARGIN = 1.0  # nats for each token of an answer
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
    start : Path, optional
        Folder of an earlier run's `adapter`, to go on from; by default a new one.
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
    grid_steps : int
        Steps of aligning the grid tokens before instruction tuning (training/stages/grid.py).
    grid : float
        Loss weight of that alignment during instruction tuning.
    swap : float
        Loss weight of the margin by which the right image should beat another of the same labels.
    """

    vision: Path
    adapter: str = "lora"
    rank: int = 32
    start: Path | None = None
    connector_factor: float = 0.3
    tokens_per_study: int = 100
    views: int = 2
    vqa_repeats: int = 3
    ground_steps: int = 600
    words: float = 0.3
    wording: float = 0.1
    grid_steps: int = 400
    grid: float = 0.3
    swap: float = 0.0


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
    """Return the kit's training examples: questions, captions, reports, fields and findings."""
    return [
        *kit.medpix_figures(),
        *kit.vqa(),
        *kit.medpix_cases(max_images=2),
        *kit.radiographs(every_nth_small=6),
        *kit.mammograms(),
        *kit.volumes(slices_per_plane=6),
        *labelled_pictures(kit.root),
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
    precision : {"bf16", "fp32"}
        Of the encoding.

    Attributes
    ----------
    views : list of lists of bfloat16 tensors, shape (F, N, width)
        Hidden states of each view and study.
    cells : list of lists of bfloat16 tensors, shape (F, cells, channels)
        Cells of the grid; empty lists without grid tokens.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        model: RadFoundForConditionalGeneration,
        views: int = 1,
        seed: int = 0,
        precision: str = "bf16",
    ):
        self.precision = precision
        bank = FrameBank(examples, FrameConfig(model.config.vision_config.image_size, max_frames=8))
        self.examples = bank.examples
        self.first: dict[int, int] = {}  # examples with the same frames share an encoding
        self.views: list[list[torch.Tensor]] = []
        self.cells: list[list[torch.Tensor]] = []
        for view in range(views):
            generator = torch.Generator().manual_seed(seed * 1009 + view) if view else None
            states, cells = self._encoded(bank, model, generator)
            self.views.append(states)
            self.cells.append(cells)

    def __len__(self) -> int:
        return len(self.examples)

    def hidden(self, indices: Sequence[int], view: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return padded hidden states (B, F, N, width) and the frame mask (B, F) of B studies."""
        states = [self.views[view][i] for i in indices]
        most = max(map(len, states))
        mask = torch.tensor([[n < len(h) for n in range(most)] for h in states])
        return _padded(states), mask

    def visual(
        self, connector: RadFoundConnector, indices: Sequence[int], view: int = 0
    ) -> torch.Tensor:
        """Return the visual tokens of B studies, shape (B, T, text width)."""
        device, dtype = connector.queries.device, connector.queries.dtype
        hidden, mask = self.hidden(indices, view)
        cells = _padded([self.cells[view][i] for i in indices]) if self.cells[view] else None
        return connector(
            hidden.to(device, dtype),
            mask.to(device),
            None if cells is None else cells.to(device, dtype),
        )

    @torch.no_grad()
    def _encoded(
        self,
        bank: FrameBank,
        model: RadFoundForConditionalGeneration,
        generator: torch.Generator | None,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        vision, grid = model.vision_model, model.connector.grid
        fast = self.precision == "bf16"
        features = []
        for rows in tqdm(torch.arange(len(bank.pixels)).split(32), desc="encoding", leave=False):
            pixels = bank.pixels[rows]
            moved = augment(pixels, generator) if generator else pixels.float() / 255.0
            with torch.autocast(vision.device.type, torch.bfloat16, enabled=fast):
                features.append(vision.stem_features(moved.to(vision.device)).to(torch.bfloat16))
        stem = torch.cat(features)
        known: dict[int, torch.Tensor] = {}
        encoded, cells = [], []
        for rows in bank.rows:
            first = int(rows[0])
            if first not in known:
                with torch.autocast(vision.device.type, torch.bfloat16, enabled=fast):
                    known[first] = (
                        vision(
                            stem_features=stem[rows][None].to(vision.dtype),
                            positions_mm=bank.positions_mm[rows][None].to(vision.device),
                            planes=bank.planes[rows][None].to(vision.device),
                            views=bank.views[rows][None].to(vision.device),
                        )
                        .last_hidden_state[0]
                        .to("cpu", torch.bfloat16)
                    )
            encoded.append(known[first])
            if grid is not None:
                cells.append(grid.cells(stem[rows].float()).to("cpu", torch.bfloat16))
        return encoded, cells


def _padded(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack tensors of different length, shape (B, longest, ...)."""
    most = max(map(len, parts))
    return torch.stack([torch.cat([p, p.new_zeros(most - len(p), *p.shape[1:])]) for p in parts])


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
    grid : GridObjective, optional
        Keeps the grid tokens from collapsing while the language model learns.
    """

    def __init__(
        self,
        model: RadFoundForConditionalGeneration,
        processor: RadFoundProcessor,
        studies: EncodedStudies,
        order: Sequence[int],
        texts: Sequence[str],
        config: InstructConfig,
        grid: GridObjective | None = None,
    ):
        super().__init__()
        self.grid = grid
        self.model, self.processor, self.studies = model, processor, studies
        self.order, self.texts, self.config = order, texts, config
        self.prefix = processor.prompt_ids("caption", None)[0]
        self.words = torch.tensor([slot_words(processor, e.labels) for e in studies.examples])
        self.turns = [
            [turn_branches(processor, turn) for turn in example.turns]
            for example in studies.examples
        ]
        # Questions about this image alone, not about a label that others share.
        self.own = [
            [
                each
                for turn, wordings in zip(e.turns, tokens, strict=True)
                if turn.id
                for each in wordings
            ]
            for e, tokens in zip(studies.examples, self.turns, strict=True)
        ]
        self.alike: dict[str, list[int]] = {}
        for number, example in enumerate(studies.examples):
            self.alike.setdefault(example.labels.get("region", ""), []).append(number)

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a step's studies and its parts."""
        chooser = draw.chooser()
        indices = [self.order[n] for n in draw.indices(len(self.order))]
        chosen = [self.branches(i, chooser) for i in indices]
        view = chooser.randrange(len(self.studies.views))
        parts = self.losses(self.studies, indices, chosen, view, chooser)
        config = self.config
        weights = {"answers": 1.0, "words": config.words, "wording": config.wording}
        weights |= {"swap": config.swap, "grid": config.grid}
        if config.wording and self.texts:
            parts["wording"] = self._wording(chooser)
        if config.grid and self.grid is not None:
            sample = chooser.sample(range(len(self.studies)), min(128, len(self.studies)))
            parts["grid"] = torch.stack(list(self.grid.losses(sample).values())).sum()
        total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        return total, {name: part.item() for name, part in parts.items()}

    def losses(
        self,
        studies: EncodedStudies,
        indices: Sequence[int],
        chosen: Sequence[Sequence[Branch]],
        view: int = 0,
        chooser: random.Random | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the losses of the answers `chosen` about studies, of the grounding, and, with `chooser`, of the swap."""
        device = self.model.device
        visual = studies.visual(self.model.connector, indices, view)
        packed = pack(self.prefix, chosen, self.processor.tokenizer.pad_token_id).to(device)
        losses = packed_losses(self.model, packed, visual)
        parts = {"answers": (losses * packed.weights).sum() / packed.weights.sum()}
        if self.config.words and studies is self.studies:
            embedding = self.model.get_input_embeddings().weight.detach().float()
            words = self.words[list(indices)].to(device)
            parts["words"] = words_loss(visual.float(), words, embedding)
        if self.config.swap and chooser is not None:
            parts["swap"] = self._swap(indices, chosen, losses, view, chooser)
        return parts

    def _swap(
        self,
        indices: Sequence[int],
        chosen: Sequence[Sequence[Branch]],
        losses: torch.Tensor,
        view: int,
        chooser: random.Random,
    ) -> torch.Tensor:
        """Return by how much answers miss the margin between the right image and one of the same region."""
        right = [each.mean() for each in losses.split([len(b.answer) for bs in chosen for b in bs])]
        asked: list[list[Branch]] = []
        others: list[int] = []
        with_right: list[torch.Tensor] = []
        start = 0
        for index, branches in zip(indices, chosen, strict=True):
            own = [n for n, each in enumerate(branches) if each in self.own[index]][:_SWAPPED]
            alike = self.alike[self.studies.examples[index].labels.get("region", "")]
            mine = self.studies.examples[index].key
            other = chooser.choice(alike)
            if own and self.studies.examples[other].key != mine:
                asked.append([branches[n] for n in own])
                others.append(other)
                with_right += [right[start + n] for n in own]
            start += len(branches)
        if not asked:
            return losses.sum() * 0.0
        packed = pack(self.prefix, asked, self.processor.tokenizer.pad_token_id)
        visual = self.studies.visual(self.model.connector, others, view)
        swapped = packed_losses(self.model, packed.to(self.model.device), visual)
        lengths = [len(b.answer) for bs in asked for b in bs]
        with_other = torch.stack([each.mean() for each in swapped.split(lengths)])
        return F.relu(_MARGIN - (with_other - torch.stack(with_right))).mean()

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
    precision = config.loop.precision
    if precision == "fp32":
        model.float()
    studies = EncodedStudies(examples, model, config.views, config.loop.seed, precision)
    validation = EncodedStudies(held, model, precision=precision) if held else None
    order = [
        index
        for index, example in enumerate(studies.examples)
        for _ in range(config.vqa_repeats if any(t.id for t in example.turns) else 1)
    ]
    if config.ground_steps:
        grounded = ground_projector(model, processor, studies, config)
        logger.info("accuracy of grounded words: %s", grounded)
    grid = grid_objective(model, processor, studies)
    if grid and config.grid_steps:
        align_grid(grid, steps=config.grid_steps, seed=config.loop.seed)
        model.requires_grad_(False)
        logger.info(
            "effective rank of the grid tokens: %.1f", grid_rank(model, validation or studies)
        )
    groups = learning_parts(model, config)
    if grid and config.grid:
        readouts = [p for n, p in grid.named_parameters() if not n.startswith("grid.")]
        groups[1.0] = [*groups[1.0], *readouts]
    texts = list(radiology_texts(Kit(config.data))) if config.data and config.wording else []
    objective = InstructObjective(
        model, processor, studies, order, texts, config, grid if config.grid else None
    )
    history = optimise(
        objective.train(),
        groups,
        config.loop,
        folder=config.out,
        validate=partial(validated, objective, validation) if validation else None,
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


def validated(objective: InstructObjective, held: EncodedStudies) -> dict[str, float]:
    """Return the loss on held-out studies, and the effective rank of their grid tokens if there are any."""
    numbers = objective.evaluate(held)
    if objective.model.connector.grid is not None:
        numbers["rank"] = grid_rank(objective.model, held)
    return numbers


@torch.no_grad()
def grid_rank(model: RadFoundForConditionalGeneration, studies: EncodedStudies) -> float:
    """Return the effective rank of the mean grid token of studies."""
    cells = model.config.num_grid_tokens
    parts = [
        studies.visual(model.connector, list(chunk))[:, -cells:].float().mean(1)
        for chunk in torch.arange(len(studies)).split(32)
    ]
    return effective_rank(torch.cat(parts).cpu().numpy())


def grid_objective(
    model: RadFoundForConditionalGeneration, processor: RadFoundProcessor, studies: EncodedStudies
) -> GridObjective | None:
    """Return the alignment of the grid tokens to the labels and captions of studies; None without grid tokens."""
    if model.connector.grid is None:
        return None
    captions = [e.text for e in studies.examples]
    known = [n for n, text in enumerate(captions) if text]
    texts = torch.zeros(len(captions), model.config.text_config.hidden_size)
    if known:
        texts[known] = caption_embeddings(
            model.language_model, processor.tokenizer, [captions[n] for n in known]
        )
    scale = float(model.get_input_embeddings().weight.detach().float().std())
    objective = GridObjective(
        model.connector.grid, studies.cells[0], studies.examples, texts, scale
    )
    return objective.to(model.device)


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
        model.language_model = (
            PeftModel.from_pretrained(model.language_model, config.start, is_trainable=True)
            if config.start
            else get_peft_model(model.language_model, upper)
        )
    else:
        model.language_model.float().requires_grad_(True)
    groups = {1.0: [p for p in model.language_model.parameters() if p.requires_grad]}
    if config.connector_factor:
        model.connector.requires_grad_(True)
        grid = list(model.connector.grid.parameters()) if model.connector.grid else []
        groups[1.0] += grid  # new, where the resampler comes from alignment
        rest = [p for p in model.connector.parameters() if all(p is not each for each in grid)]
        groups.setdefault(config.connector_factor, []).extend(rest)
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
