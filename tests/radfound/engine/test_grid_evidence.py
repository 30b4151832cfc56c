"""The evidence of a model that sees cells of the stem beside what its encoder resamples."""

import torch

from radfound.engine.local.attribution import patch_evidence
from radfound.model.checkpoints import load
from tests.training.stages.instruct.test_grid import with_grid


def relevance(model):
    processor = load("radfound-tiny")[1]
    processor.num_visual_tokens = model.config.num_visual_tokens
    frames = torch.rand(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    nowhere = torch.zeros(1, 2, dtype=torch.long)
    inputs = {
        "pixel_values": frames,
        "frame_mask": torch.ones(1, 2, dtype=torch.bool),
        "positions_mm": torch.zeros(1, 2, 3),
        "planes": nowhere,
        "views": nowhere,
    }
    prompt = processor.prompt_ids("vqa", "What is shown?")
    return patch_evidence(model, inputs, prompt, processor.answer_ids("A square."))


def test_cells_and_attention_have_the_same_weight():
    found = relevance(with_grid())
    assert found.shape == (2, 4, 4) and (found >= 0).all()
    assert torch.isclose(found.sum(), torch.tensor(2.0), atol=1e-3)


def test_cells_count_though_the_encoder_is_blind():
    model = with_grid()
    with torch.no_grad():
        for parameter in model.connector.projector[2].parameters():
            parameter.zero_()  # nothing of the resampled tokens reaches the language model
    found = relevance(model)
    assert found.sum() > 0.9
