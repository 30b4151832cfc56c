import copy
import math

import pytest
import torch

from radfound.exceptions import TrainingError
from radfound.model.configuration_radfound import RadFoundVisionConfig
from radfound.model.modeling_radfound import RadFoundVisionModel
from training.loop.config import Draw, LoopConfig
from training.stages.objectives import (
    PretrainObjective,
    PretrainWeights,
    contrast,
    contrast_within,
    frames_from,
    patches_of,
    random_patches,
)


@pytest.fixture
def objective(tiny, bank):
    torch.manual_seed(0)
    return PretrainObjective(tiny[0].vision_model, bank, decoder_width=32, decoder_layers=1)


def draw(step=0, batch_size=8):
    return Draw(step, 0, LoopConfig(10, 1e-3, batch_size=batch_size))


def test_patches_put_together_are_the_frame():
    frame = torch.rand(2, 3, 64, 64)
    assert torch.equal(frames_from(patches_of(frame, 16), 16, 64), frame)


def test_what_is_not_kept_is_hidden():
    kept, hidden = random_patches(5, 16, 6, torch.Generator().manual_seed(0))
    assert kept.shape == (5, 6) and hidden.sum(1).tolist() == [10] * 5
    assert not hidden.gather(1, kept).any()


@pytest.mark.parametrize("stem", ["patch", "efficientnet_lite0"])
def test_hidden_patches_never_reach_the_encoder(stem, bank):
    torch.manual_seed(0)
    vision = RadFoundVisionModel(
        RadFoundVisionConfig(
            image_size=64, patch_size=32, stem=stem, hidden_size=32, intermediate_size=64,
            num_hidden_layers=1, num_context_layers=1, num_attention_heads=2,
        )
    )  # fmt: skip
    objective = PretrainObjective(vision, bank, mask_ratio=0.5, decoder_width=32, decoder_layers=1)
    kept, hidden = random_patches(1, 4, 2, torch.Generator().manual_seed(0))
    pixels = torch.rand(1, 3, 64, 64)
    patches = patches_of(pixels, 32)
    other = frames_from(torch.where(hidden[..., None], 1.0 - patches, patches), 32, 64)
    with torch.no_grad():
        seen, same = (
            vision.look_inside(objective._features(some, hidden), kept) for some in (pixels, other)
        )
    assert torch.allclose(seen, same, atol=1e-6)


def test_a_hidden_frame_is_predicted_from_its_neighbours(objective, bank):
    volume = bank.rows[-1]
    pixels, owner = bank.pixels[volume].float() / 255, torch.zeros(len(volume), dtype=torch.long)
    missing = int(torch.randint(len(volume), (1,), generator=torch.Generator().manual_seed(1)))

    def context(changed):
        visible = torch.randn(len(volume), 6, 32, generator=torch.Generator().manual_seed(0))
        visible[changed] += torch.randn(6, 32, generator=torch.Generator().manual_seed(5))
        target = patches_of(pixels, 16)
        generator = torch.Generator().manual_seed(1)
        return objective._context(visible, target, volume, owner, generator).item()

    neighbour = (missing + 1) % len(volume)
    assert context(neighbour) != context(missing), "a neighbour must count"
    assert context(missing) == pytest.approx(context(slice(0, 0))), "the frame itself must not"


def test_single_pictures_have_no_context_to_predict(objective):
    objective.bank = copy.copy(objective.bank)
    objective.bank.rows = objective.bank.rows[:6]
    objective.bank.examples = objective.bank.examples[:6]
    _, numbers = objective(draw(batch_size=6))
    assert numbers["context"] == 0.0 and numbers["contrast"] == 0.0 and numbers["masked"] > 0.0


def test_gradient_reaches_every_part(objective):
    objective(draw())[0].backward()
    silent = [name for name, p in objective.named_parameters() if p.grad is None]
    assert not silent


def test_a_part_that_counts_nothing_is_not_computed(objective):
    objective.weights = PretrainWeights(masked=1.0, context=0.0, contrast=0.0)
    assert set(objective(draw())[1]) == {"masked"}


def test_the_same_step_is_the_same_loss(objective):
    assert objective(draw(3))[0].item() == objective(draw(3))[0].item()
    assert objective(draw(3))[0].item() != objective(draw(4))[0].item()


def test_learning_lowers_every_part(objective):
    first = objective(draw())[1]
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        objective(draw())[0].backward()
        optimizer.step()
    last = objective(draw())[1]
    assert all(last[name] < first[name] for name in first)


def test_the_picture_shows_frames_masked_and_rebuilt(objective, bank):
    picture = objective.picture(torch.cat(bank.rows)[:3])
    assert picture.shape == (3, 3 * 64, 3 * 64)
    assert 0.0 <= picture.min() and picture.max() <= 1.0
    assert torch.allclose(picture[:, :64, :64], bank.pixels[0] / 255.0, atol=1e-6)


def test_a_mask_ratio_that_hides_all_is_refused(tiny, bank):
    with pytest.raises(TrainingError, match="mask_ratio is 1.0"):
        PretrainObjective(tiny[0].vision_model, bank, mask_ratio=1.0)


# The two contrasts, against numbers worked by hand


def test_contrast_of_perfect_pairs_is_small_and_of_strangers_large():
    vectors = torch.eye(4)
    scale = torch.tensor(3.0)
    same = torch.eye(4, dtype=torch.bool)
    right = -math.log(math.exp(3) / (math.exp(3) + 3))
    assert contrast(vectors, vectors, same, scale).item() == pytest.approx(right, rel=1e-4)
    assert contrast(vectors, vectors.roll(1, 0), same, scale).item() > 3.0


def test_contrast_within_compares_frames_of_one_study_with_those_of_others():
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    loss = contrast_within(vectors, torch.tensor([0, 0, 1]), scale=2.0)
    assert loss.item() == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 1)), rel=1e-5)


def test_contrast_within_is_zero_where_every_study_has_one_frame():
    assert contrast_within(torch.randn(3, 4), torch.arange(3)).item() == 0.0
