import pytest
import torch

from radfound.model.checkpoints import load
from training.packing import Branch, branch, pack, packed_logits, packed_loss


@pytest.fixture(scope="module")
def tiny():
    model, processor, _, _ = load("radfound-tiny")
    return model, processor


@pytest.fixture
def visual(tiny):
    config = tiny[0].config
    return torch.randn(
        2,
        config.num_visual_tokens,
        config.text_config.hidden_size,
        generator=torch.Generator().manual_seed(0),
    )


QUESTIONS = [[("Is it CT?", "No."), ("What is it?", "An MRI of the brain.")], [("Where?", "Left.")]]


def packed_questions(processor):
    studies = [[branch(processor, "vqa", q, a) for q, a in some] for some in QUESTIONS]
    return pack(processor.prompt_ids("caption", None)[0], studies, processor.tokenizer.pad_token_id)


def separate(model, processor, visual, question, answer):
    """Logits and targets of one question in a sequence of its own."""
    before, after = processor.prompt_ids("vqa", question)
    target = processor.answer_ids(answer)
    ids = torch.tensor([before + after + target])
    start = len(before) + len(after) - 1
    return model(input_ids=ids, visual_embeds=visual).logits[
        0, start : start + len(target)
    ], torch.tensor(target)


def test_packed_questions_get_the_logits_that_each_gets_alone(tiny, visual):
    model, processor = tiny
    with torch.no_grad():
        together = packed_logits(model, packed_questions(processor), visual)
        alone = [
            separate(model, processor, visual[n : n + 1], q, a)[0]
            for n, some in enumerate(QUESTIONS)
            for q, a in some
        ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)


def test_each_answer_weighs_with_the_square_root_of_its_length(tiny, visual):
    model, processor = tiny
    with torch.no_grad():
        loss = packed_loss(model, packed_questions(processor), visual)
        parts = [
            separate(model, processor, visual[n : n + 1], q, a)
            for n, some in enumerate(QUESTIONS)
            for q, a in some
        ]
    losses = [torch.nn.functional.cross_entropy(logits, target) for logits, target in parts]
    weights = torch.tensor([len(target) ** 0.5 for _, target in parts])
    assert loss.item() == pytest.approx(
        float((torch.stack(losses) * weights).sum() / weights.sum()), rel=1e-4
    )


def test_the_stop_token_is_learnt_unless_the_answer_was_cut(tiny):
    processor = tiny[1]
    stop = processor.tokenizer.eos_token_id
    assert branch(processor, "caption", None, "Short.").answer[-1] == stop
    assert stop not in branch(processor, "caption", None, "x" * 500, limit=20).answer


def test_packing_saves_tokens():
    packed = pack([1] * 50, [[Branch([2] * 10, [3] * 5)] * 6], pad_id=0)
    assert packed.input_ids.numel() == 50 + 6 * 15 < 6 * 65
