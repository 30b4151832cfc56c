import json

import pytest

from radfound.exceptions import (
    CorrectionError,
    NotFoundError,
    RequestError,
    StudyAmbiguousError,
)
from radfound.question import CANNOT_TELL, IN_THE_FILE, Answer, ModelVersion, Turn
from radfound.records.adapters import AdapterStore
from radfound.records.corrections import Correction
from radfound.study.region import Box
from radfound.wire import (
    AnswerJson,
    AskRequest,
    answer_from_json,
    answer_to_json,
    correction_from_json,
    correction_to_json,
    error_to_json,
    parse_ask,
)

from .adapter_files import save_adapter

MODEL = ModelVersion("radfound-mini", "0123456789ab", "a-0003")


def answer(**changes) -> Answer:
    fields = {
        "id": "answer-1",
        "task": "vqa",
        "images": ("ct01",),
        "question": "Is there an effusion?",
        "text": "No.",
        "confidence": 0.83,
        "uncertainty": 0.21,
        "model": MODEL,
        "timings_ms": {"read": 0, "encode": 0, "first_token": 41, "total": 122},
    }
    return Answer(**{**fields, **changes})


def correction_json(**changes) -> dict:
    fields = {
        "schema": "radfound.correction/1",
        "id": "0f9c",
        "answer_id": "answer-1",
        "images": ["ct01"],
        "task": "vqa",
        "question": "Is there an effusion?",
        "model_text": "No.",
        "verdict": "edited",
        "text": "Yes.",
        "author": "reader 1",
        "created": "2026-08-01T09:30:00.000Z",
        "model": {"name": "radfound-mini", "revision": "0123456789ab", "adapter": None},
        "image_hash": None,
        "region": None,
    }
    return {**fields, **changes}


# Answers


def test_answer_has_the_shape_of_the_design():
    assert answer_to_json(answer()) == {
        "schema": "radfound.answer/1",
        "id": "answer-1",
        "task": "vqa",
        "images": ["ct01"],
        "question": "Is there an effusion?",
        "text": "No.",
        "sections": None,
        "confidence": 0.83,
        "uncertainty": 0.21,
        "evidence": None,
        "evidence_note": None,
        "model": {"name": "radfound-mini", "revision": "0123456789ab", "adapter": "a-0003"},
        "timings_ms": {"read": 0, "encode": 0, "first_token": 41, "total": 122},
        "finished": True,
        "shown": None,
        "source": "model",
        "reason": None,
        "model_text": None,
        "corrected_by": None,
        "corrected_on": None,
        "contradictions": [],
        "series": [],
        "series_rule": None,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"confidence": None, "uncertainty": None, "finished": False},
        {"shown": {"recipe": "family", "note": None, "slices": ["axial slice 6 of 12"]}},
        {"series": ("1.2.3",), "series_rule": "the only series"},
        {
            "source": "recall",
            "reason": "corrected by Dr A on 2026-08-01",
            "corrected_by": "Dr A",
            "corrected_on": "2026-08-01T09:30:00.000Z",
            "model_text": "Yes.",
            "contradictions": (
                {"text": "No.", "author": "Dr B", "created": "2026-07-01", "correction": "c-1"},
            ),
        },
        {
            "task": "report",
            "question": None,
            "sections": {"findings": "Clear.", "impression": "Normal."},
            "evidence": "evidence.nrrd",
            "model": ModelVersion("radfound-tiny", "r"),
        },
    ],
)
def test_an_answer_is_sent_as_it_is_described(changes):
    sent = json.loads(json.dumps(answer_to_json(answer(**changes))))
    assert AnswerJson.model_validate(sent).model_dump(mode="json", by_alias=True) == sent


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "field"}, "a classifier of the picture"),
        ({"source": "field", "reason": IN_THE_FILE}, "the file's header"),
        ({"source": "recall"}, "a reader"),
        ({"source": "head"}, "a classifier learnt from corrections"),
        ({"source": "wording"}, "the department's wording"),
        ({"source": "field", "text": CANNOT_TELL}, "This is no answer"),
        ({"text": CANNOT_TELL}, "This is no answer"),
    ],
)
def test_an_answer_that_is_not_the_models_says_why_it_has_no_map(changes, words):
    sent = answer_to_json(answer(**changes))
    assert words in sent["evidence_note"]
    assert answer_from_json(sent) == answer(**changes)


# Corrections


def test_correction_survives_the_wire():
    data = correction_json()
    read = correction_from_json(data)
    assert read.model == ModelVersion("radfound-mini", "0123456789ab")
    assert correction_to_json(read) == data


def test_what_cannot_be_told_is_answered_and_not_accepted():
    with pytest.raises(CorrectionError, match="^verdict: .*edited"):
        correction_from_json(
            correction_json(model_text=CANNOT_TELL, verdict="accepted", text=CANNOT_TELL)
        )
    assert correction_from_json(correction_json(model_text=CANNOT_TELL)).text == "Yes."


def test_region_of_a_correction_survives_the_wire():
    data = correction_json(region={"box_mm": [[-10.0, 0.0, 5.5], [10.0, 20.0, 6.0]]})
    assert correction_to_json(correction_from_json(data)) == data


def test_correction_needs_no_more_than_what_the_verdict_needs():
    needed = ("schema", "id", "images", "task", "model_text", "verdict", "author")
    data = {key: correction_json(task="caption", verdict="accepted")[key] for key in needed}
    read = correction_from_json(data)
    assert isinstance(read, Correction)
    assert (read.text, read.question, read.model, read.answer_id) == ("No.", None, None, None)


@pytest.mark.parametrize(
    "field", ["schema", "id", "images", "task", "model_text", "verdict", "author", "question"]
)
@pytest.mark.parametrize("how", ["missing", "null"])
def test_correction_that_lacks_a_field_is_refused_by_its_name(field, how):
    data = correction_json(**{field: None})
    if how == "missing":
        del data[field]
    with pytest.raises(CorrectionError, match=f"^{field}: "):
        correction_from_json(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "radfound.answer/1"),
        ("id", 7),
        ("images", {"ct01": True}),
        ("images", [1]),
        ("task", "segment"),
        ("question", ["?"]),
        ("verdict", "fine"),
        ("text", " "),
        ("text", {"html": "x"}),
        ("author", ""),
        ("created", "today"),
        ("model", "radfound-mini"),
        ("model.revision", {"name": "radfound-mini"}),
        ("verdit", "edited"),
        ("region", [[0, 0, 0], [1, 1, 1]]),
        ("region.box_mm", {"box_mm": [[0, 0, 0]]}),
    ],
)
def test_correction_of_another_shape_is_refused_by_the_name_of_its_field(field, value):
    key = field.split(".")[0]
    with pytest.raises(CorrectionError, match=f"^{field}: "):
        correction_from_json(correction_json(**{key: value}))


@pytest.mark.parametrize("value", [None, [], "text", 3, [correction_json()]])
def test_correction_that_is_no_object_is_refused(value):
    with pytest.raises(CorrectionError, match="^correction: "):
        correction_from_json(value)


# Questions


def test_a_long_question_is_counted_in_characters():
    with pytest.raises(RequestError, match="question: found 5,000 characters; at most 4,000 fit"):
        parse_ask({"question": "x" * 5000})


def test_question_with_all_its_parts_is_read():
    asked = parse_ask(
        {
            "question": "  And now? ",
            "history": [{"question": "Before?", "answer": "No.", "id": "ignored"}],
            "images": ["l cc", "r cc"],
            "region": {"box_mm": [[-10, 0, 5.5], [10, 20, 6]]},
            "max_new_tokens": 32,
        }
    )
    assert asked == AskRequest(
        question="And now?",
        history=(Turn("Before?", "No."),),
        images=("l cc", "r cc"),
        region=Box(((-10.0, 0.0, 5.5), (10.0, 20.0, 6.0))),
        max_new_tokens=32,
    )


@pytest.mark.parametrize("params", [{}, {"question": None, "history": None, "region": None}])
def test_nothing_asked_is_a_request_for_a_caption_or_report(params):
    assert parse_ask(params) == AskRequest()


def test_parameters_of_other_clients_are_ignored():
    params = {"question": "?", "result_extension": ".nrrd", "label_info": [], "device": "cuda"}
    assert parse_ask(params) == AskRequest(question="?")


def test_the_image_of_the_address_cannot_be_replaced():
    with pytest.raises(RequestError, match="^image: "):
        parse_ask({"question": "?", "image": "/etc/passwd"})


def test_a_request_names_one_model_or_several():
    assert parse_ask({"question": "?", "model": "large"}).model == "large"
    assert parse_ask({"question": "?", "models": ["a", "b"]}).models == ("a", "b")
    with pytest.raises(RequestError, match="^models: "):
        parse_ask({"question": "?", "models": ["a"] * 9})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("question", 5),
        ("question", "x" * 4_001),
        ("question", "\udcff"),
        ("history", "Before?"),
        (r"history\[0\]", ["Before?"]),
        (r"history\[0\].answer", [{"question": "Before?"}]),
        ("history", [{"question": "?", "answer": "!"}] * 65),
        ("images", "ct01"),
        (r"images\[1\]", ["ct01", 2]),
        ("images", [""]),
        ("images", ["ct01"] * 65),
        ("max_new_tokens", 0),
        ("max_new_tokens", 513),
        ("max_new_tokens", 12.5),
        ("max_new_tokens", "12"),
        ("max_new_tokens", True),
        ("region", "all"),
    ],
)
def test_parameter_of_another_shape_is_refused_by_its_name(field, value):
    key = field.split("\\")[0]
    with pytest.raises(RequestError, match=f"^{field}: "):
        parse_ask({key: value})


@pytest.mark.parametrize("params", [None, [], "question"])
def test_parameters_that_are_no_object_are_refused(params):
    with pytest.raises(RequestError, match="^params: "):
        parse_ask(params)


# Errors and adapters


def test_foreseen_error_says_its_code_and_message():
    error = NotFoundError("no study 'ct99'; see /datastore/")
    assert error_to_json(error) == {
        "detail": {"code": "not_found", "message": "no study 'ct99'; see /datastore/"}
    }


def test_what_can_be_chosen_goes_to_the_client_as_it_asks_for_it():
    volumes = StudyAmbiguousError("two", ["0", "1"], "volume", ["b = 0", "b = 1000"])
    assert error_to_json(volumes)["detail"]["choices"] == [
        {"volume": 0, "is": "b = 0"},
        {"volume": 1, "is": "b = 1000"},
    ]
    series = StudyAmbiguousError("two", ["3", "1.2.3"], words=["CT, 3 images", "MR, 1 image"])
    assert error_to_json(series)["detail"]["choices"][1] == {"series": "1.2.3", "is": "MR, 1 image"}
    assert "choices" not in error_to_json(StudyAmbiguousError("two patients"))["detail"]


def test_unforeseen_error_tells_nothing_of_the_patient():
    detail = error_to_json(ValueError("Doe^Jane"))["detail"]
    assert detail["code"] == "internal_error"
    assert "Doe" not in detail["message"]


def test_adapters_are_listed_with_the_active_one(tmp_path):
    folder = save_adapter(tmp_path / "trained")
    store = AdapterStore(tmp_path / "adapters")
    assert store.to_json() == {"active": None, "adapters": [], "refused": []}
    store.publish(folder, {"metrics": {"kept": 1.0}})
    listed = json.loads(json.dumps(store.to_json()))
    assert listed["active"] == "a-0001"
    [adapter] = listed["adapters"]
    assert (adapter["id"], adapter["active"]) == ("a-0001", True)
    assert adapter["manifest"]["metrics"] == {"kept": 1.0}
