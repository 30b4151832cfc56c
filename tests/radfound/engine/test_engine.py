import asyncio
import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from radfound.engine.confidence import (
    Calibration,
    Curve,
    length_normalised_probability,
    normalised_entropy,
)
from radfound.engine.engine import Engine
from radfound.engine.local.model import LocalModel
from radfound.engine.protocol import Abilities, Description
from radfound.engine.shown import Picture, Shown
from radfound.engine.stream import Stream, Token
from radfound.exceptions import AdapterError, Cancelled, RequestError
from radfound.question import Answer, Question, Turn
from radfound.records.adapters import AdapterStore
from radfound.study.region import Box
from radfound.study.study import Study
from radfound.wire import answer_from_json, answer_to_json


def published(store, **manifest):
    """Publish a random adapter that changes every answer."""
    model = LocalModel.load("radfound-tiny").model
    torch.manual_seed(1)
    wrapped = get_peft_model(
        model.language_model, LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], r=4)
    )
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    folder = store.root.parent / "new"
    wrapped.save_pretrained(folder)
    return store.publish(folder, manifest)


def test_the_stream_ends_with_the_answer_whose_text_it_spelled(engine, study):
    *pieces, answer = engine.stream(study, "vqa", "What is shown?", max_new_tokens=10)
    assert isinstance(answer, Answer) and all(isinstance(piece, str) for piece in pieces)
    assert "".join(pieces).strip() == answer.text
    assert answer.images == ("ct01",) and answer.question == "What is shown?"
    assert answer.confidence is None and 0 <= answer.uncertainty <= 1
    assert answer.timings_ms["total"] >= answer.timings_ms["first_token"]


def test_the_answer_is_what_plain_generate_writes(engine, study):
    local = engine.backend.model
    inputs = local.processor(study, "What is shown?")
    ids = local.model.generate(**inputs, max_new_tokens=16, do_sample=False)
    text = local.processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :])[0]
    assert (
        engine.answer(study, "vqa", "What is shown?", max_new_tokens=16).text
        == text.rstrip("\ufffd").strip()
    )


def test_questions_history_and_region_each_change_what_the_model_reads(engine, study):
    def score(question="Why?", history=(), region=None):
        asked = Question("vqa", question, tuple(history), region)
        return engine.backend.score(study, asked, "yes", adapter=None)

    box = Box(((-15.0, -15.0, 0.0), (-2.0, -2.0, 9.0)))
    scores = [
        score(),
        score("Where?"),
        score(history=[Turn("a", "b")]),
        score(region=box),
    ]
    assert len({round(s, 4) for s in scores}) == 4


def test_captions_and_reports_need_no_question(engine, study):
    assert engine.answer(study, "caption", max_new_tokens=3).question is None
    assert engine.answer(study, "report", max_new_tokens=3).task == "report"


@pytest.mark.parametrize(
    "wrong",
    [
        {"question": None},
        {"question": "x", "max_new_tokens": 0},
        {"question": "x", "max_new_tokens": 513},
        {"question": "x", "region": {"sphere": 3}},
        {"question": "x", "task": "segment"},
    ],
)
def test_a_wrong_argument_is_refused_by_name_and_the_engine_goes_on(engine, study, wrong):
    with pytest.raises(RequestError):
        engine.answer(study, **{"task": "vqa", **wrong})
    assert (
        engine.answer(study, "vqa", "Still there?", max_new_tokens=2).model.name == "radfound-tiny"
    )


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"question": "x" * 3000}, "question: the prompt has 3,"),
        ({"history": [Turn("a" * 1000, "b" * 1000)] * 2}, "leave out the oldest"),
        ({"max_new_tokens": 512, "question": "x" * 1600}, "an answer of 512"),
    ],
)
def test_a_prompt_that_the_model_has_no_room_for_is_refused(engine, study, asked, named):
    for refuse in (engine.check, lambda *args, **kwargs: engine.answer(study, *args, **kwargs)):
        with pytest.raises(RequestError, match=named):
            refuse("vqa", **{"question": "Why?", **asked})
    assert engine.answer(study, "vqa", "x" * 1000, max_new_tokens=1)


def test_more_images_than_the_model_reads_are_refused_before_they_are_read(engine):
    engine.check("caption", images=4)
    with pytest.raises(RequestError, match="images: found 5; the model reads at most 4"):
        engine.check("caption", images=5)


def test_evidence_is_given_for_shorter_prompts_than_an_answer(engine, study):
    asked = ("vqa", "x" * 800)
    engine.check(*asked)
    with pytest.raises(RequestError, match="at most 256"):
        engine.check(*asked, evidence=True)
    with pytest.raises(RequestError, match="at most 256"):
        engine.evidence(study, engine.answer(study, *asked, max_new_tokens=1))


def test_a_cancelled_answer_stops_and_frees_the_engine(engine, study):
    def cancelled_on_the_way():
        cancel = threading.Event()
        stream = engine.stream(study, "vqa", "Why?", max_new_tokens=500, cancel=cancel)
        next(stream)
        cancel.set()
        try:
            list(stream)
        except Cancelled:
            return True
        return False  # a busy machine may write all tokens before this thread runs again

    assert any(cancelled_on_the_way() for _ in range(5))
    assert engine.answer(study, "vqa", "Why?", max_new_tokens=2)


def test_a_stream_that_nobody_reads_on_frees_the_engine(engine, study):
    stream = engine.stream(study, "vqa", "Why?", max_new_tokens=500)
    next(stream)
    stream.close()
    assert engine.answer(study, "vqa", "Why?", max_new_tokens=2)


def test_a_question_that_waits_can_be_cancelled(engine, study):
    stream = engine.stream(study, "vqa", "Why?", max_new_tokens=500)
    next(stream)
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        engine.answer(study, "vqa", "Me too?", cancel=cancel)
    stream.close()


def test_eight_threads_get_the_answers_that_one_would(engine, study):
    questions = [f"Question {n}?" for n in range(8)]
    alone = [engine.answer(study, "vqa", q, max_new_tokens=5).text for q in questions]
    found = [""] * 8

    def ask(n):
        found[n] = engine.answer(study, "vqa", questions[n], max_new_tokens=5).text

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


def test_a_study_is_encoded_once_for_all_questions(engine, study, monkeypatch):
    calls = []
    encode = engine.backend.model.encode
    monkeypatch.setattr(engine.backend.model, "encode", lambda *a: calls.append(a) or encode(*a))
    other = Study(tuple(replace(image, voxels=image.voxels + 1) for image in study.images))
    for question in ("a", "b", "c"):
        engine.answer(other, "vqa", question, max_new_tokens=1)
    assert len(calls) == 1


def test_an_adapter_published_while_the_engine_runs_is_used_from_the_next_answer(study, tmp_path):
    store = AdapterStore(tmp_path / "adapters")
    engine = Engine.load("radfound-tiny", adapters=store)
    before = engine.answer(study, "vqa", "Why?", max_new_tokens=8)
    adapter = published(store)
    during = engine.answer(study, "vqa", "Why?", max_new_tokens=8)
    store.activate(None)
    after = engine.answer(study, "vqa", "Why?", max_new_tokens=8)
    assert [a.model.adapter for a in (before, during, after)] == [None, adapter, None]
    assert before.text == after.text and before.uncertainty == pytest.approx(after.uncertainty)
    assert during.uncertainty != pytest.approx(before.uncertainty)


def test_a_study_is_not_read_again_when_the_adapter_changes(study, tmp_path):
    store = AdapterStore(tmp_path / "adapters")
    engine = Engine.load("radfound-tiny", adapters=store)
    texts = [engine.answer(study, "vqa", "Why?", max_new_tokens=8).text]
    published(store)
    texts.append(engine.answer(study, "vqa", "Why?", max_new_tokens=8).text)
    assert texts[0] != texts[1]
    assert (engine.backend.prefixes.misses, engine.backend.prefixes.hits) == (1, 1)


def test_confidence_calibrated_for_the_base_model_is_not_given_for_an_adapter(study, tmp_path):
    store = AdapterStore(tmp_path / "adapters")
    engine = Engine.load("radfound-tiny", adapters=store)
    engine.calibration = Calibration("random", {"open": Curve(2.0, 0.0, 100)})
    before = engine.answer(study, "vqa", "Why?", max_new_tokens=2)
    published(store)
    during = engine.answer(study, "vqa", "Why?", max_new_tokens=2)
    assert 0 < before.confidence < 1 and during.confidence is None


def test_an_answer_that_has_begun_ends_with_the_adapter_it_began_with(study, tmp_path):
    store = AdapterStore(tmp_path / "adapters")
    engine = Engine.load("radfound-tiny", adapters=store)
    stream = engine.stream(study, "vqa", "Why?", max_new_tokens=8)
    next(stream)
    published(store)
    assert list(stream)[-1].model.adapter is None


@pytest.mark.parametrize("damage", ["tampered", "other base"])
def test_an_adapter_that_cannot_be_used_leaves_the_one_before_in_place(study, tmp_path, damage):
    store = AdapterStore(tmp_path / "adapters")
    engine = Engine.load("radfound-tiny", adapters=store)
    good = published(store)
    assert engine.answer(study, "vqa", "Why?", max_new_tokens=2).model.adapter == good
    bad = published(store, **({"base_revision": "another"} if damage == "other base" else {}))
    if damage == "tampered":
        weights = store.root / bad / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert engine.answer(study, "vqa", "Why?", max_new_tokens=2).model.adapter == good


def test_an_adapter_in_a_pickle_is_refused(engine, study, tmp_path):
    store = AdapterStore(tmp_path / "adapters")
    folder = store.path(published(store))
    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    torch.save(load_file(pickled / "adapter_model.safetensors"), pickled / "adapter_model.bin")
    (pickled / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match="safetensors"):
        store.publish(pickled, {})
    with pytest.raises(AdapterError, match="safetensors"):
        engine.backend.use_adapter("pickled", pickled)
    assert engine.answer(study, "vqa", "Still there?", max_new_tokens=2)


def test_confidence_is_the_geometric_mean_and_entropy_a_share():
    assert length_normalised_probability(np.log([0.5, 0.125]).tolist()) == pytest.approx(0.25)
    assert normalised_entropy([np.log(10)], 10) == pytest.approx(1.0)
    assert length_normalised_probability([]) is None and normalised_entropy([], 10) is None


# Other backends


class FakeBackend:
    """Streams fixed tokens; what it is asked is kept."""

    def __init__(self, tokens, shown=None, adapters="while running"):
        self.tokens, self.shown, self.adapters = tokens, shown, adapters
        self.asked, self.used, self.dropped = [], [], []

    def describe(self):
        abilities = Abilities("none", adapters=self.adapters)
        return Description("fake", "r1", None, 4, None, "fake", abilities)

    def stream(self, study, question, *, adapter, limit):
        self.asked.append((question, adapter, limit))
        stream = Stream()
        stream.shown = self.shown
        for token in self.tokens:
            stream.put(token)
        stream.end()
        return stream

    def use_adapter(self, adapter, folder):
        self.used.append(adapter)

    def drop_adapter(self, adapter):
        self.dropped.append(adapter)


TOKENS = [Token("Yes"), Token(", left."), Token("", last=True)]


def test_what_a_backend_does_not_know_is_none_in_the_answer(study):
    calibration = Calibration("r1", {"closed": Curve(1.0, 0.0, 100)})
    engine = Engine(FakeBackend(TOKENS), calibration=calibration)
    answer = engine.answer(study, "vqa", "Is there air?")
    assert (answer.text, answer.finished) == ("Yes, left.", True)
    assert answer.confidence is answer.uncertainty is answer.shown is None


def test_the_answer_names_the_slices_that_the_model_was_shown(study):
    picture = Picture(np.zeros((2, 2, 3), np.uint8), "axial slice 6 of 12", 0, 5)
    shown = Shown("family", ("The study:", picture), note="1 of 12 slices")
    answer = Engine(FakeBackend(TOKENS, shown)).answer(study, "vqa", "Is there air?")
    expected = {
        "recipe": "family",
        "note": "1 of 12 slices",
        "slices": ["axial slice 6 of 12"],
    }
    assert answer.shown == expected
    assert answer_from_json(answer_to_json(answer)) == answer


def test_an_answer_of_an_earlier_version_says_nothing_of_slices(study):
    answer = Engine(FakeBackend(TOKENS)).answer(study, "vqa", "Is there air?")
    old = answer_to_json(answer)
    del old["shown"]
    assert answer_from_json(old) == answer


def test_the_adapter_is_named_in_every_call_and_given_to_the_backend_once(study, tmp_path):
    store, backend = AdapterStore(tmp_path / "adapters"), FakeBackend(TOKENS)
    engine = Engine(backend, adapters=store)
    engine.answer(study, "caption")
    adapter = published(store)
    for _ in range(2):
        assert engine.answer(study, "caption").model.adapter == adapter
    assert [each[1] for each in backend.asked] == [None, adapter, adapter]
    assert backend.used == [adapter]


def test_after_the_backend_has_lost_an_adapter_the_one_before_answers(study, tmp_path):
    store = AdapterStore(tmp_path / "adapters")
    engine = Engine.load("radfound-tiny", adapters=store)
    good, lost = published(store), published(store)
    assert engine.answer(study, "caption", max_new_tokens=1).model.adapter == lost
    shutil.rmtree(store.root / lost)
    engine.backend.score(study, Question("caption"), "yes", adapter=None)  # unloads it
    with pytest.raises(AdapterError):
        engine.answer(study, "caption", max_new_tokens=1)
    assert engine.answer(study, "caption", max_new_tokens=1).model.adapter == good


def test_of_many_adapters_the_backend_keeps_the_newest(study, tmp_path):
    store, backend = AdapterStore(tmp_path / "adapters"), FakeBackend(TOKENS)
    engine = Engine(backend, adapters=store)
    names = []
    first = store.path(published(store))
    for _ in range(9):
        names.append(store.publish(first, {}))
        engine.answer(study, "caption")
    assert backend.used == names and backend.dropped == names[:1]


def test_a_backend_without_adapters_answers_with_the_base_model_and_says_why(study, tmp_path):
    store = AdapterStore(tmp_path / "adapters")
    engine = Engine(FakeBackend(TOKENS, adapters="none"), adapters=store)
    adapter = published(store)
    assert engine.answer(study, "caption").model.adapter is None
    assert engine.next_adapter() == (None, f"adapter {adapter}: fake cannot use adapters")


# Asynchronous streams


def test_an_async_stream_has_the_pieces_of_the_other(engine, study):
    async def ask(question):
        stream = engine.stream(study, "vqa", question, max_new_tokens=10)
        return [piece async for piece in stream]

    async def ask_two():
        return await asyncio.gather(ask("What is shown?"), ask("Why?"))

    for question, (*pieces, answer) in zip(
        ("What is shown?", "Why?"), asyncio.run(ask_two()), strict=True
    ):
        *expected, other = engine.stream(study, "vqa", question, max_new_tokens=10)
        assert pieces == expected and answer.text == other.text


def test_an_async_stream_can_be_cancelled_while_it_is_awaited(engine, study):
    async def scenario():
        stream = engine.stream(study, "vqa", "Why?", max_new_tokens=500)
        await anext(stream)
        asyncio.get_running_loop().call_later(0.05, stream.cancel)
        with pytest.raises(Cancelled):
            async for _ in stream:
                pass
        assert stream.has_ended

    asyncio.run(scenario())


def test_a_stream_that_is_forgotten_frees_the_engine(engine, study):
    stream = engine.stream(study, "vqa", "Why?", max_new_tokens=500)
    next(stream)
    tokens = stream._stream
    del stream
    assert tokens.is_cancelled


def test_engine_and_protocol_need_no_torch():
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'peft'): sys.modules[name] = None\n"
        "import radfound.engine.protocol, radfound.engine.engine, radfound.engine.generated\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
