"""RadFound's own model behind the protocol: adapters named in every call, scores and choices."""

import threading

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from radfound.engine.generated import Ask, generate
from radfound.engine.local.backend import LocalBackend
from radfound.engine.local.model import LocalModel
from radfound.exceptions import AdapterError, Cancelled, NotFoundError, RequestError
from radfound.question import Question, Turn

WHY = Question("vqa", "Why?")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three LoRA adapters: two that change every answer, and "still", which changes none."""
    folder = tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate(("a", "b", "still")):
        model = LocalModel.load("radfound-tiny").model.language_model
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj", "down_proj"], r=4))
        for parameter_name, parameter in wrapped.named_parameters():
            if "lora_B" in parameter_name and name != "still":
                torch.nn.init.normal_(parameter)
        wrapped.save_pretrained(folder / name)
    return folder


@pytest.fixture
def backend(folders):
    backend = LocalBackend.load("radfound-tiny")
    for name in ("a", "b"):
        backend.use_adapter(name, folders / name)
    return backend


def text(stream):
    return "".join(token.text for token in stream)


def test_the_description_names_what_the_model_can_do(backend):
    found = backend.describe()
    assert found.name == "radfound-tiny" and found.recipe == "radfound"
    assert found.abilities.adapters == "while running" and found.abilities.probabilities == "all"
    assert found.context_tokens == 2048 and found.max_images == 4


def test_every_answer_has_the_adapter_that_its_call_names(backend, study):
    names = (None, "a", "b")
    alone = {n: text(backend.stream(study, WHY, adapter=n, limit=8)) for n in names}
    assert len(set(alone.values())) == 3
    order = ("a", None, "b", "a", "b", None, "b")
    streams = [backend.stream(study, WHY, adapter=name, limit=8) for name in order]
    assert [text(stream) for stream in streams] == [alone[name] for name in order]
    asks = [Ask(study, WHY, 8)] * 3
    assert [each.text for each in generate(backend, asks, adapter="b")] == [alone["b"]] * 3


def test_a_score_with_another_adapter_leaves_a_running_answer_as_it_is(backend, study):
    expected = text(backend.stream(study, WHY, adapter="a", limit=60))
    scores = {name: backend.score(study, WHY, "yes", adapter=name) for name in (None, "a", "b")}
    assert len({round(score, 4) for score in scores.values()}) == 3
    running = backend.stream(study, WHY, adapter="a", limit=60)
    for name, score in scores.items():
        assert backend.score(study, WHY, "yes", adapter=name) == pytest.approx(score, abs=0.02)
    backend.evidence(study, WHY, "yes", adapter=None)
    assert text(running) == expected


def test_an_adapter_that_is_added_while_an_answer_runs_does_not_change_it(folders, study):
    backend = LocalBackend.load("radfound-tiny")
    backend.use_adapter("a", folders / "a")
    expected = text(backend.stream(study, WHY, adapter="a", limit=60))
    running = backend.stream(study, WHY, adapter="a", limit=60)
    backend.use_adapter("b", folders / "b")
    assert text(running) == expected


def test_an_adapter_without_effect_is_refused(backend, folders, study):
    with pytest.raises(AdapterError, match="does not change the model's probabilities"):
        backend.use_adapter("still", folders / "still")
    with pytest.raises(NotFoundError, match="still"):
        list(backend.stream(study, WHY, adapter="still", limit=1))
    assert list(backend.stream(study, WHY, adapter="a", limit=1))


def test_an_adapter_is_checked_once(backend, folders, monkeypatch):
    monkeypatch.setattr(backend, "_check_effect", lambda adapter: pytest.fail("checked again"))
    backend.use_adapter("a", folders / "a")


def test_a_dropped_adapter_is_unknown(backend, study):
    backend.drop_adapter("b")
    backend.drop_adapter("b")
    with pytest.raises(NotFoundError, match="adapter b"):
        backend.score(study, WHY, "yes", adapter="b")


# Choices


def test_the_probabilities_of_the_options_add_up_to_one(backend, study):
    found = backend.choose(study, WHY, ["yes", "no", "cannot be determined"], adapter=None)
    assert list(found) == ["yes", "no", "cannot be determined"]
    assert sum(found.values()) == pytest.approx(1) and min(found.values()) >= 0
    other = backend.choose(study, WHY, ["yes", "no", "cannot be determined"], adapter="a")
    assert other != pytest.approx(found)


def test_an_option_has_the_probability_of_all_its_spellings(backend, study):
    found = backend.choose(study, WHY, ["Yes.", "no"], adapter=None)
    spelled = {
        option: [f"{word}{end}" for word in words for end in ("", ".")]
        for option, words in (("Yes.", ("Yes", "yes")), ("no", ("no", "No")))
    }
    model = backend.model
    prefix = model.prefill(model.encode(study))
    sums = {
        option: sum(
            np.exp(float(each.double().sum()))
            for each in model.log_probabilities(prefix, WHY, texts)
        )
        for option, texts in spelled.items()
    }
    assert found["Yes."] == pytest.approx(sums["Yes."] / sum(sums.values()), rel=1e-3)


@pytest.mark.parametrize("options", [["yes"], ["Yes", "yes."], ["yes", " "], []])
def test_options_that_leave_no_choice_are_refused(backend, study, options):
    with pytest.raises(RequestError, match="options"):
        backend.choose(study, WHY, options, adapter=None)


def test_texts_of_different_length_are_scored_together_as_alone(backend, study):
    model = backend.model
    prefix = model.prefill(model.encode(study))
    texts = ["no", "yes, on the left side of the chest", "maybe"]
    together = model.log_probabilities(prefix, WHY, texts)
    for answer, each in zip(together, texts, strict=True):
        [alone] = model.log_probabilities(prefix, WHY, [each])
        assert answer.tolist() == pytest.approx(alone.tolist(), abs=0.05)


# Streams


def test_a_question_that_is_too_long_fails_from_its_stream(backend, study):
    history = (Turn("a" * 1000, "b" * 1000),) * 2
    stream = backend.stream(study, Question("vqa", "Why?", history), adapter=None, limit=8)
    with pytest.raises(RequestError, match="oldest"):
        list(stream)


def test_closing_the_backend_cancels_running_and_waiting_answers(backend, study):
    streams = [backend.stream(study, WHY, adapter=None, limit=400) for _ in range(10)]
    next(iter(streams[0]))
    backend.close()
    for stream in streams:
        with pytest.raises(Cancelled):
            list(stream)


def test_answers_that_are_not_consumed_are_cancelled(backend, study):
    consumed = threading.Event()

    def asks():
        for _ in range(5):
            yield Ask(study, Question("vqa", "Why?"), 400)
        consumed.set()

    answers = generate(backend, asks(), at_once=2)
    next(answers)
    answers.close()
    assert not consumed.is_set()
    assert list(backend.stream(study, WHY, adapter=None, limit=2))
