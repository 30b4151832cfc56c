"""The stage from the settings to the saved files."""

from __future__ import annotations

import logging
from functools import partial

import torch
from accelerate.utils import set_seed
from peft import PeftModel, get_peft_model
from torch import nn

from radfound.datasets.kit import Kit
from radfound.datasets.texts import radiology_texts
from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from radfound.model.processing_radfound import RadFoundProcessor
from training.loop.manifest import hash_examples, write_manifest
from training.loop.optimise import optimise
from training.lora import lora_config
from training.stages.common import load_parts, stage_examples, stage_model
from training.stages.grounding import ground, slot_words
from training.stages.instruct.config import InstructConfig
from training.stages.instruct.encoded import EncodedStudies
from training.stages.instruct.examples import (
    conversations,
    epoch_order,
    held_examples,
    kit_examples,
)
from training.stages.instruct.grid import GridObjective, align_grid, grid_objective, grid_rank
from training.stages.instruct.objective import InstructObjective
from training.stages.instruct.saving import LANGUAGE_MODEL, save

logger = logging.getLogger(__name__)


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
    grid = prepare_connector(model, processor, studies, validation or studies, config)
    groups = learning_parts(model, config, grid)
    order = epoch_order(studies.examples, config.vqa_repeats)
    texts = list(radiology_texts(Kit(config.data))) if config.data and config.wording else []
    objective = InstructObjective(model, processor, studies, order, texts, config, grid)
    history = optimise(
        objective.train(),
        groups,
        config.loop,
        folder=config.out,
        validate=partial(validated, objective, validation) if validation else None,
    )
    write_manifest(
        config.out,
        stage="instruct",
        config=config,
        data_hash=hash_examples(studies.examples),
        metrics=history[-1],
        files=save(model, config.out, config.language_model or LANGUAGE_MODEL),
    )
    return history[-1]


def prepare_connector(
    model: RadFoundForConditionalGeneration,
    processor: RadFoundProcessor,
    studies: EncodedStudies,
    held: EncodedStudies,
    config: InstructConfig,
) -> GridObjective | None:
    """Ground the projector, then align the grid tokens; return their objective if they go on learning."""
    if config.ground_steps:
        grounded = ground_projector(model, processor, studies, config)
        logger.info("accuracy of grounded words: %s", grounded)
    grid = grid_objective(model, processor, studies)
    if grid and config.grid_steps:
        align_grid(grid, steps=config.grid_steps, seed=config.loop.seed)
        model.requires_grad_(False)
        logger.info("effective rank of the grid tokens: %.1f", grid_rank(model, held))
    return grid if config.grid else None


def validated(objective: InstructObjective, held: EncodedStudies) -> dict[str, float]:
    """Return the loss on held-out studies, and the effective rank of their grid tokens if there are any."""
    numbers = objective.evaluate(held)
    if objective.model.connector.grid is not None:
        numbers["rank"] = grid_rank(objective.model, held)
    return numbers


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
    model: RadFoundForConditionalGeneration,
    config: InstructConfig,
    grid: GridObjective | None = None,
) -> dict[float, list[nn.Parameter]]:
    """Add an adapter to the language model, unfreeze it or leave it; return trainable parameters by rate factor.

    With `grid`, the readouts of the grid tokens' objective are among them.
    """
    if config.adapter == "full":
        model.language_model.float().requires_grad_(True)
    elif config.start:
        model.language_model = PeftModel.from_pretrained(
            model.language_model, config.start, is_trainable=config.adapter == "lora"
        )
    else:
        # The upper two thirds of the layers, so that no gradient is computed below them.
        layers = model.config.text_config.num_hidden_layers
        upper = lora_config(config.rank, range(layers // 3, layers))
        model.language_model = get_peft_model(model.language_model, upper)
    groups = {1.0: [p for p in model.language_model.parameters() if p.requires_grad]}
    if config.connector_factor:
        model.connector.requires_grad_(True)
        new = list(model.connector.grid.parameters()) if model.connector.grid else []
        groups[1.0] += new  # where the resampler comes from alignment
        rest = [p for p in model.connector.parameters() if all(p is not each for each in new)]
        groups.setdefault(config.connector_factor, []).extend(rest)
    if grid is not None:
        groups[1.0] += [p for n, p in grid.named_parameters() if not n.startswith("grid.")]
    return groups
