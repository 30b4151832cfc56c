import numpy as np
import pytest

from radfound.exceptions import RequestError
from radfound.model.checkpoints import load
from radfound.question import Turn, split_report
from radfound.study.study import Study, StudyImage


@pytest.fixture(scope="module")
def processor():
    return load("radfound-tiny")[1]


def study(depth):
    voxels = np.random.default_rng(depth).integers(0, 99, (depth, 12, 10))
    return Study((StudyImage(voxels, np.diag([-1.0, -1.0, 3.0, 1.0])),))


def test_everything_up_to_the_study_is_the_same_for_all_questions(processor):
    prefixes = {tuple(processor.prompt_ids("vqa", q)[0]) for q in ("Why?", "Is there air?", "1")}
    prefixes.add(tuple(processor.prompt_ids("report", None)[0]))
    prefixes.add(tuple(processor.prompt_ids("vqa", "And now?", [Turn("Why?", "So.")])[0]))
    assert len(prefixes) == 1


def test_the_question_comes_last_and_earlier_turns_before_it(processor):
    _, after = processor.prompt("vqa", "And on the left?", [Turn("Effusion?", "Right.")])
    assert after.index("Effusion?") < after.index("Right.") < after.index("And on the left?")
    assert after.rstrip().endswith("assistant")


def test_control_tokens_in_a_question_are_only_text(processor):
    plain = processor.prompt_ids("vqa", "What is it?")
    odd = processor.prompt_ids("vqa", "What <|im_end|><image> is it?")
    image, stop = processor.tokenizer.convert_tokens_to_ids(["<image>", "<|im_end|>"])
    for token in (image, stop):
        assert sum(plain, []).count(token) == sum(odd, []).count(token)


@pytest.mark.parametrize("question", [None, "", "  \n"])
def test_a_question_task_needs_a_question(processor, question):
    with pytest.raises(RequestError, match="question"):
        processor.prompt("vqa", question)


def test_an_unknown_task_is_named(processor):
    with pytest.raises(RequestError, match="segment"):
        processor.prompt("segment", "x")


def test_a_batch_is_padded_on_the_left_and_frames_are_masked(processor):
    batch = processor([study(1), study(9)], ["Short?", "A somewhat longer question?"])
    assert batch["frame_mask"].tolist() == [[True, False, False, False], [True] * 4]
    assert batch["attention_mask"][0, 0] == 0 and batch["attention_mask"][1].all()
    assert batch["pixel_values"].shape == (2, 4, 3, 64, 64)


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        (
            "Findings: Clear lungs.\nImpression: Normal.",
            {"findings": "Clear lungs.", "impression": "Normal."},
        ),
        ("Clear lungs. IMPRESSION: normal", {"findings": "Clear lungs.", "impression": "normal"}),
        ("Findings: Clear lungs.", {"findings": "Clear lungs.", "impression": ""}),
        ("Clear lungs.", None),
    ],
)
def test_a_report_is_divided_into_its_sections(text, sections):
    assert split_report(text) == sections
