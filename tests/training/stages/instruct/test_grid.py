"""Grid tokens: cells of the stem that reach the language model without passing the encoder's layers."""

import random

import pytest
import torch

from radfound.benchmark.scoring.rank import effective_rank
from radfound.datasets.example import Example
from radfound.model.checkpoints import load
from radfound.model.configuration_radfound import RadFoundConfig
from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from training.stages.instruct.grid import GridObjective, align_grid, spread


def with_grid(tokens=8, grid=4):
    """A random model, half of whose visual tokens are cells of a grid."""
    config = load("radfound-tiny")[0].config
    fields = config.to_dict() | {"num_visual_tokens": tokens, "num_grid_tokens": grid}
    torch.manual_seed(0)
    return RadFoundForConditionalGeneration(RadFoundConfig(**fields)).eval()


def test_vectors_of_few_directions_are_less_spread():
    generator = torch.Generator().manual_seed(0)
    every = torch.randn(256, 32, generator=generator)
    assert spread(every) < 0.1 * spread(every[:, :2] @ torch.randn(2, 32, generator=generator))
    assert spread(torch.zeros(8, 32)) > 0.9


@torch.no_grad()
def test_grid_tokens_come_last_and_padding_frames_do_not_change_them():
    model = with_grid()
    frames = torch.rand(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    alone = model.get_image_features(pixel_values=frames[:, :1])
    padded = model.get_image_features(pixel_values=frames, frame_mask=torch.tensor([[True, False]]))
    assert alone.shape == (1, 8, model.config.text_config.hidden_size)
    assert torch.allclose(alone[:, 4:], padded[:, 4:], atol=1e-5)
    both = model.get_image_features(pixel_values=frames)
    other = model.get_image_features(pixel_values=frames[:, 1:])
    assert not torch.allclose(both[:, 4:], other[:, 4:], atol=1e-3)


@torch.no_grad()
def test_a_cell_is_a_place_in_the_picture():
    model = with_grid()
    frames = torch.full((1, 1, 3, 64, 64), 0.5)
    marked = frames.clone()
    marked[..., :32, 32:] = 1.0
    change = model.get_image_features(pixel_values=marked) - model.get_image_features(
        pixel_values=frames
    )
    assert change[0, 4:].abs().amax(-1).gt(1e-4).tolist() == [False, True, False, False]


@pytest.mark.parametrize("tokens, grid", [(8, 3), (8, 9), (4, 4)])
def test_a_grid_that_does_not_fit_is_refused(tokens, grid):
    with pytest.raises(ValueError, match="num_grid_tokens"):
        RadFoundConfig(num_visual_tokens=tokens, num_grid_tokens=grid)


def test_alignment_tells_fields_and_pictures_of_the_same_labels_apart():
    grid = with_grid().connector.grid
    chance = random.Random(0)
    generator = torch.Generator().manual_seed(0)
    words = [chance.choice(("T1", "T2")) for _ in range(96)]
    examples = [
        Example(str(n), (), (), {"region": "head", "weighting": word}, f"caption {n}")
        for n, word in enumerate(words)
    ]
    cells = [torch.randn(1, 4, 32, generator=generator) for _ in words]
    for each, word in zip(cells, words, strict=True):
        each[..., 0] += 4.0 * (word == "T1")
    texts = torch.randn(len(words), 32, generator=generator)
    objective = GridObjective(grid, cells, examples, texts, embedding_std=0.5)
    everyone = list(range(len(words)))
    with torch.no_grad():
        before = objective.losses(everyone)
    align_grid(objective, steps=120)
    with torch.no_grad():
        after = objective.losses(everyone)
        pooled = objective.tokens(everyone).mean(1)
        named = objective.readouts["weighting"](pooled).argmax(1)
    assert "region" not in objective.readouts  # one word only: nothing to tell apart
    assert (named == objective.classes["weighting"]).float().mean() > 0.9
    assert all(after[name] < before[name] for name in ("fields", "captions", "spread"))
    assert effective_rank(pooled.numpy()) > 8
