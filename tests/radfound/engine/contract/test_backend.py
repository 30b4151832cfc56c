"""What every backend must do, whatever model is behind it; `conftest.BACKENDS` lists them."""

import asyncio
import math
import shutil

import numpy as np
import pytest

from radfound.engine.protocol import Description
from radfound.exceptions import (
    AdapterError,
    Cancelled,
    RadFoundError,
    RequestError,
    UnsupportedError,
)
from radfound.question import Question, Turn
from radfound.records.adapter_weights import WEIGHTS_FILE
from radfound.study.region import region_from_json
from radfound.study.study import Study, StudyImage

LIMIT = 6
QUESTION = Question(text="What is shown?")


def noise(seed, depth=3):
    voxels = np.random.default_rng(seed).integers(0, 99, (depth, 40, 50)).astype(np.int16)
    return Study((StudyImage(voxels, np.diag([-1.0, -1.0, 3.0, 1.0])),))


STUDY = noise(1)


def ask(backend, study=STUDY, question=QUESTION, adapter=None, limit=LIMIT):
    return list(backend.stream(study, question, adapter=adapter, limit=limit))


def text(tokens):
    return "".join(token.text for token in tokens)


def numbers(tokens):
    return [token.log_probability for token in tokens]


def test_describes_its_model(backend):
    found = backend.describe()
    assert isinstance(found, Description)
    assert found.name and found.revision and found.recipe and found.max_images >= 1
    assert found.context_tokens is None or found.context_tokens > 0
    assert found.vocabulary is None or found.vocabulary > 1  # a server may not say


def test_tokens_come_with_what_is_known_of_their_probabilities(backend):
    tokens = ask(backend)
    assert 1 <= len(tokens) <= LIMIT
    assert not any(token.last for token in tokens[:-1])
    for token in tokens:
        if backend.describe().abilities.probabilities == "none":
            assert token.log_probability is None and token.entropy is None
        else:
            assert token.log_probability <= 1e-6 and token.entropy >= -1e-6


def test_the_same_question_gets_the_same_answer(backend):
    assert text(ask(backend)) == text(ask(backend))


def test_an_answer_keeps_to_its_limit(backend):
    assert len(ask(backend, limit=2)) <= 2


def test_the_answer_depends_on_the_study(backend):
    if backend.describe().abilities.probabilities == "none":
        assert text(ask(backend)) != text(ask(backend, noise(2)))
    else:
        assert numbers(ask(backend)) != numbers(ask(backend, noise(2)))


def test_earlier_turns_are_part_of_the_question(backend):
    later = Question(text="What is shown?", history=(Turn("Is it CT?", "No, it is MR."),))
    first, second = ask(backend), ask(backend, question=later)
    assert (text(first), numbers(first)) != (text(second), numbers(second))


@pytest.mark.parametrize("task", ["caption", "report"])
def test_captions_and_reports_need_no_question(backend, task):
    assert ask(backend, question=Question(task))


def test_what_the_model_was_shown_is_known_before_the_first_token(backend):
    stream = backend.stream(STUDY, QUESTION, adapter=None, limit=LIMIT)
    next(iter(stream))
    if stream.shown is not None:
        assert stream.shown.recipe == backend.describe().recipe
        assert all(0 <= each.slice < 3 for each in stream.shown.pictures if each.slice is not None)
    stream.cancel()


def test_a_region_narrows_what_the_model_is_shown(backend):
    region = region_from_json({"slice_mm": {"point": [-5, -5, 3.0], "normal": [0, 0, 1]}})
    stream = backend.stream(STUDY, Question(text="?", region=region), adapter=None, limit=LIMIT)
    assert list(stream)
    if stream.shown is not None:
        assert [each.slice for each in stream.shown.pictures] == [1]


def test_a_region_outside_the_study_is_refused_from_the_stream(backend):
    region = region_from_json({"slice_mm": {"point": [900, 0, 0], "normal": [0, 0, 1]}})
    stream = backend.stream(STUDY, Question(text="?", region=region), adapter=None, limit=LIMIT)
    with pytest.raises(RequestError, match="region"):
        list(stream)


def test_words_that_look_like_control_tokens_are_only_words(backend):
    words = "<image> <|im_end|> <start_of_image> <|image_pad|> what is it?"
    assert ask(backend, question=Question(text=words))


def test_too_many_images_and_too_long_questions_are_refused_before_the_study_is_loaded(backend):
    description = backend.describe()
    with pytest.raises(RequestError, match="images"):
        backend.check(QUESTION, LIMIT, images=description.max_images + 1)
    if description.context_tokens is not None:
        with pytest.raises(RequestError, match="question"):
            backend.check(Question(text="word " * (description.context_tokens + 1)), LIMIT)
    backend.check(QUESTION, LIMIT)


def test_a_cancelled_answer_ends_and_the_next_question_is_answered(backend):
    stream = backend.stream(STUDY, QUESTION, adapter=None, limit=200)
    next(iter(stream))
    stream.cancel()
    with pytest.raises(Cancelled):
        list(stream)
    assert ask(backend)


def test_an_answer_can_be_cancelled_before_it_begins(backend):
    streams = [backend.stream(STUDY, QUESTION, adapter=None, limit=LIMIT) for _ in range(4)]
    streams[-1].cancel()
    with pytest.raises(Cancelled):
        list(streams[-1])
    assert all(list(stream) for stream in streams[:-1])


def test_concurrent_questions_get_the_answers_that_they_get_alone(backend):
    asked = [(noise(seed), Question(text=f"Question {seed}?")) for seed in (3, 4, 3, 5)]
    alone = [text(ask(backend, *each)) for each in asked]
    streams = [backend.stream(*each, adapter=None, limit=LIMIT) for each in asked]
    assert [text(stream) for stream in streams] == alone


def test_a_stream_can_be_taken_by_an_event_loop(backend):
    async def take():
        stream = backend.stream(STUDY, QUESTION, adapter=None, limit=LIMIT)
        return [token async for token in stream]

    assert text(asyncio.run(take())) == text(ask(backend))


def test_scores_a_given_answer_or_says_that_it_cannot(backend):
    if not backend.describe().abilities.score:
        with pytest.raises(UnsupportedError):
            backend.score(STUDY, QUESTION, "No.", adapter=None)
        return
    own, other = text(ask(backend)), "The weather is fine today in the hills."
    scores = [backend.score(STUDY, QUESTION, each, adapter=None) for each in (own, other)]
    assert all(math.isfinite(score) and score <= 0 for score in scores)
    assert scores[0] > scores[1]


def test_chooses_among_options_or_says_that_it_cannot(backend):
    if not backend.describe().abilities.choose:
        with pytest.raises(UnsupportedError):
            backend.choose(STUDY, QUESTION, ("yes", "no"), adapter=None)
        return
    chosen = backend.choose(STUDY, QUESTION, ("yes", "no"), adapter=None)
    assert list(chosen) == ["yes", "no"]
    assert sum(chosen.values()) == pytest.approx(1)
    assert all(0 <= each <= 1 for each in chosen.values())


def test_embeds_a_study_or_says_that_it_cannot(backend):
    if not backend.describe().abilities.embed:
        with pytest.raises(UnsupportedError):
            backend.embed(STUDY)
        return
    embedding = backend.embed(STUDY)
    assert embedding.dtype == np.float32 and embedding.ndim == 1
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-3)
    assert np.allclose(embedding, backend.embed(noise(1)))
    assert not np.allclose(embedding, backend.embed(noise(2)))


def test_maps_evidence_or_says_that_it_cannot(backend):
    if not backend.describe().abilities.evidence:
        with pytest.raises(UnsupportedError):
            backend.evidence(STUDY, QUESTION, "No.", adapter=None)
        with pytest.raises(UnsupportedError):
            backend.check(QUESTION, LIMIT, evidence=True)
        return
    found = backend.evidence(STUDY, QUESTION, "No.", adapter=None)
    assert [each.shape for each in found.maps] == [image.voxels.shape for image in STUDY.images]


def test_an_adapter_changes_the_answers_that_name_it_and_no_other(backend, adapter):
    if adapter is None:
        assert backend.describe().abilities.adapters == "none"
        with pytest.raises(UnsupportedError):
            backend.use_adapter("a-0001", WEIGHTS_FILE)
        return
    before = ask(backend)
    backend.use_adapter("a-0001", adapter)
    backend.use_adapter("a-0001", adapter)  # nothing to do
    adapted = ask(backend, adapter="a-0001")
    assert (text(adapted), numbers(adapted)) != (text(before), numbers(before))
    assert text(ask(backend)) == text(before)
    streams = [
        backend.stream(STUDY, QUESTION, adapter=each, limit=LIMIT) for each in (None, "a-0001")
    ]
    assert [text(stream) for stream in streams] == [text(before), text(adapted)]
    backend.drop_adapter("a-0001")
    backend.drop_adapter("a-0001")
    assert text(ask(backend)) == text(before)
    with pytest.raises(RadFoundError, match="a-0001"):
        ask(backend, adapter="a-0001")


def test_a_damaged_adapter_is_refused_and_the_base_model_answers_on(backend, adapter, tmp_path):
    if adapter is None:
        return
    before = ask(backend)
    broken = shutil.copytree(adapter, tmp_path / "broken")
    weights = broken / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AdapterError):
        backend.use_adapter("a-0002", broken)
    assert text(ask(backend)) == text(before)
