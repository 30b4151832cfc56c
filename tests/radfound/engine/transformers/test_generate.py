"""The backend gives the text of plain processor and generate, however much of the prompt is cached."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from radfound.engine.shown import Picture
from radfound.engine.transformers.backend import TransformersBackend
from radfound.question import Question, Turn, WorkedExample
from radfound.study.study import Study, StudyImage

from ..tiny_models import FAMILIES

LIMIT = 12


def noise(seed, depth=3):
    voxels = np.random.default_rng(seed).integers(0, 99, (depth, 40, 50)).astype(np.int16)
    return Study((StudyImage(voxels, np.diag([-1.0, -1.0, 3.0, 1.0])),))


def answer(backend, study, question, adapter=None, limit=LIMIT):
    return list(backend.stream(study, question, adapter=adapter, limit=limit))


def text(tokens):
    return "".join(each.text for each in tokens)


def generate(folder, family, shown, question):
    """Answer by the documented calls of transformers alone, with the recipe's pictures and words."""
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False
    )
    content = [
        {"type": "image", "image": Image.fromarray(part.pixels)}
        if isinstance(part, Picture)
        else {"type": "text", "text": part}
        for part in shown.parts
    ]
    turns = [(t.question, t.answer) for t in question.history]
    messages = [{"role": "user", "content": content}]
    for asked, said in turns:
        messages[-1]["content"].append({"type": "text", "text": asked})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": said}]})
        messages.append({"role": "user", "content": []})
    messages[-1]["content"].append({"type": "text", "text": question.text})
    options = {"do_image_splitting": False} if family == "smolvlm" else {}
    inputs = processor.apply_chat_template(
        messages,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )
    ids = model.generate(**inputs, max_new_tokens=LIMIT, do_sample=False)
    new = ids[0, inputs["input_ids"].shape[1] :]
    whole = processor.tokenizer.decode(new, skip_special_tokens=True)
    return whole.rstrip("\ufffd")  # half a character at the limit is not shown


@pytest.mark.parametrize("family", FAMILIES)
def test_first_question_and_follow_ups_give_the_text_of_plain_generate(family, backends, folders):
    backend, study = backends(family), noise(1)
    for question in (
        Question(text="What is shown?"),
        Question(text="Is there an effusion?"),
        Question(text="And now?", history=(Turn("Is it CT?", "Yes."),)),
    ):
        shown = backend.recipe.show(study, question)
        expected = generate(folders(family), family, shown, question)
        assert expected
        assert text(answer(backend, study, question)) == expected


@pytest.mark.parametrize("family", ["gemma3", "qwen2_vl", "smolvlm"])
def test_worked_examples_are_part_of_the_prompt_and_of_no_other(family, backends, folders):
    backend, study = backends(family), noise(1)
    example = WorkedExample("c1", noise(7), "What is shown?", "A heart.", "Dr A, 2026-08-01")
    plain = Question(text="What is shown?")
    asked = Question(text="What is shown?", examples=(example,))
    alone = text(answer(backend, study, plain))
    shown = backend.recipe.show(study, asked)
    assert len(shown.pictures) > len(backend.recipe.show(study, plain).pictures)
    assert text(answer(backend, study, asked)) == generate(folders(family), family, shown, asked)
    assert text(answer(backend, study, plain)) == alone


def test_a_follow_up_prefills_the_question_alone(backend, monkeypatch):
    study = noise(2)
    answer(backend, study, Question(text="What is shown?"))
    lengths = []
    forward = backend.model.forward

    def counted(*args, **kwargs):
        lengths.append(kwargs["input_ids"].shape[1])
        assert kwargs.get("pixel_values") is None
        return forward(*args, **kwargs)

    monkeypatch.setattr(backend.model, "forward", counted)
    answer(backend, study, Question(text="Is there an effusion?"))
    assert lengths[0] < 30 and set(lengths[1:]) == {1}


def test_concurrent_questions_get_the_answers_that_they_get_alone(backend):
    asked = [(noise(seed, depth), Question(text=f"Question {seed}?")) for seed, depth in
             ((3, 1), (4, 3), (5, 2), (3, 1), (6, 4))]  # fmt: skip
    alone = [text(answer(backend, *each)) for each in asked]
    streams = [backend.stream(*each, adapter=None, limit=LIMIT) for each in asked]
    assert [text(list(stream)) for stream in streams] == alone


def test_the_models_own_repetition_penalty_is_kept(folders, tmp_path, monkeypatch):
    folder = shutil.copytree(folders("qwen2_vl"), tmp_path / "qwen2_vl")
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"repetition_penalty": 3.0}))
    backend = TransformersBackend.load(folder, device="cpu", dtype="float32")
    question = Question(text="What is shown?")
    expected = generate(folder, "qwen2_vl", backend.recipe.show(noise(1), question), question)
    assert text(answer(backend, noise(1), question)) == expected
    backend.close()
