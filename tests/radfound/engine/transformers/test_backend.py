import dataclasses
import threading

import pytest
import torch

from radfound.engine.transformers.backend import TransformersBackend
from radfound.exceptions import AdapterError, Busy, Cancelled, RequestError
from radfound.question import Question, WorkedExample
from radfound.study.region import region_from_json

from ..tiny_models import STOP, build_adapter
from .test_generate import LIMIT, answer, noise, text

QUESTION = Question(text="What is shown?")


@pytest.fixture
def fresh(folders):
    """A backend of its own, which a test may change."""
    made = []

    def load(family="llava", **options):
        made.append(
            TransformersBackend.load(folders(family), device="cpu", dtype="float32", **options)
        )
        return made[-1]

    yield load
    for each in made:
        each.close()


def test_thinking_is_neither_shown_nor_counted(fresh):
    plain = fresh()
    pieces = [each.text for each in answer(plain, noise(1), QUESTION)]
    recipe = dataclasses.replace(plain.recipe, hidden=((pieces[1], pieces[3]),))
    thinking = fresh(recipe=recipe)
    visible = answer(thinking, noise(1), QUESTION, limit=LIMIT - 3)
    assert [each.text for each in visible] == [pieces[0], pieces[4].lstrip(), *pieces[5:]]


def test_thinking_that_does_not_end_is_cut_off(fresh):
    plain = fresh()
    first = answer(plain, noise(1), QUESTION)[0].text
    recipe = dataclasses.replace(plain.recipe, hidden=((first, "</never>"),), hidden_tokens=5)
    assert answer(fresh(recipe=recipe), noise(1), QUESTION) == []


def test_too_many_slices_for_the_context_say_how_many_fit(fresh):
    backend = fresh("smolvlm")
    backend._description = dataclasses.replace(backend._description, context_tokens=150)
    with pytest.raises(
        RequestError, match=r"16 pictures take \d+ tokens.* so that 10 pictures fit"
    ):
        answer(backend, noise(1, depth=16), QUESTION)
    region = region_from_json({"box_mm": [[-60, -60, 0], [60, 60, 9]]})
    assert answer(backend, noise(1, depth=16), Question(text="What?", region=region))


def test_worked_examples_that_the_context_has_no_room_for_are_left_out(fresh):
    backend = fresh("smolvlm")
    example = WorkedExample("c1", noise(7, depth=9), "What is shown?", "A heart.", "Dr A")
    asked = Question(text="What is shown?", examples=(example,))
    alone = text(answer(backend, noise(1), QUESTION))
    assert "worked example" in backend._prepare(noise(1), asked, None, LIMIT).shown.note
    few = backend._prepare(noise(1), QUESTION, None, LIMIT)
    room = len(few.part.ids if few.part else few.prefix.ids) + len(few.rest) + LIMIT
    backend._description = dataclasses.replace(backend._description, context_tokens=room)
    assert text(answer(backend, noise(1), asked)) == alone


def test_the_caches_of_studies_keep_within_their_memory(fresh):
    backend = fresh()
    answer(backend, noise(1), QUESTION)
    size = backend.prefixes.get((noise(1).digest, None, None)).nbytes
    small = fresh(prefix_bytes=2 * size + 1)
    for seed in (1, 2, 3):
        answer(small, noise(seed), QUESTION)
    assert len(small.prefixes) == 2
    none = fresh(prefix_bytes=1)
    assert text(answer(none, noise(1), QUESTION)) == text(answer(backend, noise(1), QUESTION))
    assert len(none.prefixes) == 0


def test_regions_and_adapters_have_caches_of_their_own(fresh, folders, tmp_path):
    backend = fresh()
    region = region_from_json({"slice_mm": {"point": [-5, -5, 3.0], "normal": [0, 0, 1]}})
    backend.use_adapter("a-0001", build_adapter(folders("llava"), tmp_path / "a"))
    answer(backend, noise(1), QUESTION)
    answer(backend, noise(1), Question(text="What?", region=region))
    answer(backend, noise(1), QUESTION, adapter="a-0001")
    assert len(backend.prefixes) == 3
    backend.drop_adapter("a-0001")
    assert len(backend.prefixes) == 2


def test_two_adapters_are_loaded_and_each_answer_has_its_own(fresh, folders, tmp_path):
    backend = fresh("gemma3")
    for name, scale in (("a-0001", 0.2), ("a-0002", 0.5)):
        backend.use_adapter(name, build_adapter(folders("gemma3"), tmp_path / name, scale=scale))
    names = (None, "a-0001", "a-0002")
    alone = {name: text(answer(backend, noise(1), QUESTION, name)) for name in names}
    assert len(set(alone.values())) == 3
    streams = {
        name: backend.stream(noise(1), QUESTION, adapter=name, limit=LIMIT) for name in names
    }
    assert {name: text(stream) for name, stream in streams.items()} == alone


def batch_sizes(backend, monkeypatch):
    sizes, step = [], backend._decoder.step

    def counted(cache, ids, mask, positions):
        sizes.append(len(ids))
        return step(cache, ids, mask, positions)

    monkeypatch.setattr(backend._decoder, "step", counted)
    return sizes


@pytest.mark.parametrize(
    ("family", "together"), [("llava", True), ("qwen2_vl", True), ("gemma3", False)]
)
def test_questions_are_decoded_together_where_the_cache_allows_it(
    fresh, monkeypatch, family, together
):
    backend = fresh(family)
    for seed in (1, 2, 3):
        answer(backend, noise(seed, depth=seed), QUESTION)
    sizes = batch_sizes(backend, monkeypatch)
    streams = [
        backend.stream(noise(seed, depth=seed), QUESTION, adapter=None, limit=40)
        for seed in (1, 2, 3)
    ]
    assert all(list(stream) for stream in streams)
    assert max(sizes) > 1 if together else set(sizes) == {1}


def test_a_long_answer_does_not_keep_others_waiting_to_its_end(fresh):
    backend = fresh("gemma3")
    answer(backend, noise(1), QUESTION)
    long = backend.stream(noise(1), QUESTION, adapter=None, limit=2000)
    next(iter(long))
    assert answer(backend, noise(1), Question(text="And now?"), limit=3)
    assert not long._has_ended
    long.cancel()


def test_cancelling_frees_the_slot_at_the_next_step(fresh):
    backend = fresh()
    stream = backend.stream(noise(1), QUESTION, adapter=None, limit=2000)
    next(iter(stream))
    stream.cancel()
    answer(backend, noise(1), QUESTION, limit=2)
    assert backend._worker.call(lambda: [len(each.rows) for each in backend._worker._batches]) in (
        [],
        [0],
    )


def test_a_failing_step_ends_its_answers_and_the_next_question_is_answered(fresh, monkeypatch):
    backend = fresh()
    expected = text(answer(backend, noise(1), QUESTION))

    def fails(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(backend._decoder, "step", fails)
        with pytest.raises(Busy, match="memory is full"):
            answer(backend, noise(1), QUESTION)
        patch.setattr(backend._decoder, "extend", fails)
        with pytest.raises(Busy):
            answer(backend, noise(1), QUESTION)
    assert text(answer(backend, noise(1), QUESTION)) == expected


def test_an_adapter_in_use_is_dropped_after_the_answer(fresh, folders, tmp_path):
    backend = fresh()
    backend.use_adapter("a-0001", build_adapter(folders("llava"), tmp_path / "a"))
    expected = text(answer(backend, noise(1), QUESTION, "a-0001", limit=60))
    stream = backend.stream(noise(1), QUESTION, adapter="a-0001", limit=60)
    first = next(iter(stream))
    dropping = threading.Thread(target=backend.drop_adapter, args=("a-0001",))
    dropping.start()
    assert first.text + text(stream) == expected
    dropping.join(timeout=20)
    assert not dropping.is_alive()


def test_closing_ends_the_answers(fresh):
    backend = fresh()
    stream = backend.stream(noise(1), QUESTION, adapter=None, limit=2000)
    next(iter(stream))
    backend.close()
    with pytest.raises(Cancelled):
        list(stream)


def test_a_score_is_that_of_one_forward_pass_over_everything(fresh):
    backend = fresh()
    shown = backend.recipe.show(noise(1), QUESTION)
    part, rest = backend.prompts.pictures_part(shown, QUESTION)
    said = [*backend.prompts.answer(shown, QUESTION, "No effusion.", rest), STOP]
    ids = torch.tensor([[*part.ids, *rest, *said]])
    with torch.no_grad():
        logits = backend.model(**part.inputs | {"input_ids": ids}).logits[0, -len(said) - 1 : -1]
    logs = logits.log_softmax(-1).gather(-1, torch.tensor(said)[:, None])
    score = backend.score(noise(1), QUESTION, "No effusion.", adapter=None)
    assert score == pytest.approx(float(logs.mean()), abs=1e-4)


def test_a_choice_follows_the_probabilities_of_whole_answers(fresh):
    backend = fresh()
    logs = backend._score_all(noise(1), QUESTION, ["7", "8"], None)
    chosen = backend.choose(noise(1), QUESTION, ("7", "8"), adapter=None)
    ratio = torch.tensor([sum(each) for each in logs]).softmax(0)
    assert list(chosen.values()) == pytest.approx(ratio.tolist(), abs=1e-4)
    with pytest.raises(RequestError, match="options: found 1; expected two or more"):
        backend.choose(noise(1), QUESTION, ("yes", "yes"), adapter=None)


def test_an_adapter_of_a_missing_folder_is_refused(fresh, tmp_path):
    with pytest.raises(AdapterError, match="missing or damaged"):
        fresh().use_adapter("a-0001", tmp_path / "nothing")
