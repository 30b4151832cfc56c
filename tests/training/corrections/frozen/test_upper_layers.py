import pytest
import torch
from peft import LoraConfig, get_peft_model

from radfound.engine.local.model import LocalModel
from radfound.question import Question
from training.corrections.frozen.upper_layers import UpperLayers, _groups_of_like_length
from training.packing import branch

SAID = [[("Is it CT?", "No."), ("What is it?", "An MRI of the brain.")], [("Where?", "Left.")]]


@pytest.fixture
def base():
    return LocalModel.load("radfound-tiny")


@pytest.fixture
def visual(base):
    config = base.model.config
    noise = torch.Generator().manual_seed(0)
    shape = (2, 1, config.num_visual_tokens, config.text_config.hidden_size)
    return torch.randn(shape, generator=noise).to(base.model.dtype)


@pytest.fixture
def studies(base, visual):
    return [
        (base.prefill(tokens), [branch(base.processor, "vqa", q, a) for q, a in some])
        for tokens, some in zip(visual, SAID, strict=True)
    ]


def adapted(base, upper):
    config = LoraConfig(
        target_modules=["q_proj", "v_proj", "o_proj", "down_proj"],
        layers_to_transform=upper.numbers,
        init_lora_weights=False,
    )
    base.model.language_model = get_peft_model(base.model.language_model, config)


@pytest.mark.parametrize("count", [1, 2, 99])
def test_the_upper_layers_say_what_the_whole_model_with_its_adapter_says(
    base, visual, studies, count
):
    upper = UpperLayers(base, count)
    cached = upper.precompute(studies)
    torch.manual_seed(0)
    adapted(base, upper)
    with torch.no_grad():
        run = upper.forward(cached)
    said = [
        log_probabilities[range(length), targets].mean()
        for log_probabilities, targets, length in zip(
            run.logits.log_softmax(-1).split(run.lengths),
            run.targets.split(run.lengths),
            run.lengths,
            strict=True,
        )
    ]
    alone = [
        base.score(tokens, Question("vqa", question), answer)
        for tokens, some in zip(visual, SAID, strict=True)
        for question, answer in some
    ]
    assert torch.allclose(torch.stack(said), torch.tensor(alone), atol=0.02)


def test_what_the_base_model_says_is_kept_beside_a_reading(base, studies):
    upper = UpperLayers(base, 1)
    cached = upper.precompute(studies)
    before = upper.forward(cached).logits
    adapted(base, upper)
    kept = upper.head(torch.cat([each.teacher_hidden for each in cached])).float()
    assert torch.allclose(kept, before, atol=0.05)
    assert not torch.allclose(upper.forward(cached).logits, before, atol=0.05)


def test_an_adapter_does_not_change_how_a_study_is_read(base, visual):
    before = base.prefill(visual[0])
    adapted(base, UpperLayers(base, 2))
    after = base.prefill(visual[0])
    for (old_keys, old_values), (keys, values) in zip(before.layers, after.layers, strict=True):
        assert torch.equal(old_keys, keys) and torch.equal(old_values, values)


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        ([7], [[0]]),
        ([9, 9, 9], [[0, 1, 2]]),
        ([9, 40, 8], [[2, 0], [1]]),
        ([40, 8, 39, 8], [[1, 3], [2, 0]]),
    ],
)
def test_answers_of_like_length_are_run_together(lengths, groups):
    assert _groups_of_like_length(lengths) == groups
