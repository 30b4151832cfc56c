"""The backend gives the text of plain processor and generate, however much of the prompt is cached."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from radfound.engine.shown import Picture
from radfound.question import Question, Turn
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


@pytest.fixture(scope="module")
def plain(folders):
    """Answers by the documented calls of transformers alone, with the recipe's pictures and words."""

    def generate(family, shown, question):
        processor = AutoProcessor.from_pretrained(folders(family), trust_remote_code=False)
        model = AutoModelForImageTextToText.from_pretrained(
            folders(family), dtype=torch.float32, trust_remote_code=False
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
        return processor.tokenizer.decode(new, skip_special_tokens=True)

    return generate


@pytest.mark.parametrize("family", FAMILIES)
def test_first_question_and_follow_ups_give_the_text_of_plain_generate(family, backends, plain):
    backend, study = backends(family), noise(1)
    for question in (
        Question(text="What is shown?"),
        Question(text="Is there an effusion?"),
        Question(text="And now?", history=(Turn("Is it CT?", "Yes."),)),
    ):
        shown = backend.recipe.show(study, question)
        expected = plain(family, shown, question)
        assert text(answer(backend, study, question)) == expected


def test_a_follow_up_prefills_the_question_alone(backend, monkeypatch):
    study = noise(2)
    answer(backend, study, Question(text="What is shown?"))
    lengths = []
    forward = backend._model.forward

    def counted(*args, **kwargs):
        lengths.append(kwargs["input_ids"].shape[1])
        assert kwargs.get("pixel_values") is None
        return forward(*args, **kwargs)

    monkeypatch.setattr(backend._model, "forward", counted)
    answer(backend, study, Question(text="Is there an effusion?"))
    assert lengths[0] < 30 and set(lengths[1:]) == {1}


def test_concurrent_questions_get_the_answers_that_they_get_alone(backend):
    asked = [(noise(seed, depth), Question(text=f"Question {seed}?")) for seed, depth in
             ((3, 1), (4, 3), (5, 2), (3, 1), (6, 4))]  # fmt: skip
    alone = [text(answer(backend, *each)) for each in asked]
    streams = [backend.stream(*each, adapter=None, limit=LIMIT) for each in asked]
    assert [text(list(stream)) for stream in streams] == alone
