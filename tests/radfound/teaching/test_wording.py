import pytest

from radfound.correction import Correction
from radfound.exceptions import NotFoundError, RequestError, StorageError
from radfound.question import Question
from radfound.records.corrections import CorrectionLog
from radfound.teaching import Teaching
from radfound.teaching.decisions import Decisions, decisions_path
from radfound.teaching.wording import propose, template_text

NAME = "How does our department name this series?"
FIELDS = {
    "d1": {"modality": "MRI", "plane": "sagittal", "region": "head"},
    "d2": {"modality": "CT", "plane": "axial", "region": "thorax"},
    "d3": {"modality": "CT", "plane": "coronal", "region": "abdomen"},
    "d4": {"modality": "MRI", "plane": "axial", "region": "head"},
}


def correction(study: str, text: str, **changes) -> Correction:
    fields = {
        "images": (study,),
        "task": "vqa",
        "question": NAME,
        "model_text": "CT",
        "verdict": "edited",
        "text": text,
        "author": "Dr A",
        "image_hash": study,
    }
    return Correction(**{**fields, **changes})


def known(row: Correction) -> dict[str, str]:
    return FIELDS.get(row.image_hash, {})


@pytest.fixture
def log(tmp_path) -> CorrectionLog:
    return CorrectionLog(tmp_path / "corrections.sqlite")


@pytest.fixture
def teaching(log, tmp_path) -> Teaching:
    decisions = Decisions(decisions_path(tmp_path))
    return Teaching(log, decisions, fields=lambda digest: FIELDS.get(digest, {}))


def ask(teaching, study, question=NAME):
    return teaching.after_answer(study, (study,), Question("vqa", question), "CT")


def test_known_values_become_slots():
    assert template_text("MRI of the head, sagittal", FIELDS["d1"]) == (
        "{modality} of the {region}, {plane}"
    )
    assert template_text("Sagittal MR image of the head.", FIELDS["d1"]) == (
        "{Plane} {modality} image of the {region}."
    )


def test_part_of_a_word_is_no_slot_and_braces_are_left_alone():
    assert template_text("Headache; aCT", FIELDS["d1"] | {"modality": "CT"}) == "Headache; aCT"
    assert template_text("{MRI} of the head", FIELDS["d1"]) == "{MRI} of the head"


def test_two_agreeing_corrections_propose_a_template():
    rows = [
        correction("d1", "MRI of the head, sagittal"),
        correction("d2", "CT of the thorax, axial"),
    ]
    [template] = propose(rows, known)
    assert template.text == "{modality} of the {region}, {plane}"
    assert template.apply(FIELDS["d3"]) == "CT of the abdomen, coronal"
    assert template.constant == ()


def test_slots_that_did_not_vary_are_named():
    rows = [correction("d2", "CT of the thorax"), correction("d3", "CT of the abdomen")]
    [template] = propose(rows, known)
    assert template.constant == ("modality",)


def test_one_correction_or_the_same_text_twice_proposes_nothing():
    assert propose([correction("d1", "MRI of the head")], known) == []
    same = [correction("d1", "MRI of the head"), correction("d4", "MRI of the head")]
    assert propose(same, known) == []
    free = [correction("d1", "Normal."), correction("d2", "Normal.")]
    assert propose(free, known) == []


def test_template_of_a_caption_begins_with_a_capital():
    rows = [
        correction("d1", "Sagittal MRI of the head.", task="caption", question=None),
        correction("d2", "Axial CT of the thorax.", task="caption", question=None),
    ]
    [template] = propose(rows, known)
    assert template.apply(FIELDS["d3"]) == "Coronal CT of the abdomen."


def test_departments_own_word_is_learnt_from_two_examples():
    rows = [
        correction("d2", "CT of the thorax, axial"),
        correction("d3", "CT of the abdomen, coronal"),
        correction("d1", "MRI of the Schädel, sagittal"),
    ]
    assert propose(rows, known)[0].terms == {}
    rows.append(correction("d4", "MRI of the Schädel, axial"))
    [template] = [each for each in propose(rows, known) if "region" in each.slots]
    assert template.terms == {"region": {"head": "Schädel"}}
    assert template.apply(FIELDS["d4"]) == "MRI of the Schädel, axial"


def test_wrong_field_is_not_learnt_as_a_word():
    rows = [
        correction("d2", "CT of the thorax, axial"),
        correction("d3", "CT of the abdomen, coronal"),
        correction("d1", "MRI of the head, axial"),  # the field says sagittal
        correction("d1", "MRI of the head, axial"),
    ]
    assert propose(rows, known)[0].terms == {}


def test_template_is_applied_only_after_a_person_accepted_it(teaching, log):
    log.append(correction("d1", "MRI of the head, sagittal"))
    log.append(correction("d2", "CT of the thorax, axial"))
    assert ask(teaching, "d3") is None
    [state] = teaching.templates()
    assert state.state == "proposed"
    teaching.accept(state.template.id, "Dr B")
    found = ask(teaching, "d3")
    assert (found.source, found.text, found.model_text) == (
        "wording",
        "CT of the abdomen, coronal",
        "CT",
    )
    assert found.version == "template 1" and "Dr B accepted" in found.reason
    assert ask(teaching, "unknown study") is None
    assert ask(teaching, "d3", "Which modality is this?") is None


def test_recall_comes_before_wording(teaching, log):
    log.append(correction("d1", "MRI of the head, sagittal"))
    log.append(correction("d2", "CT of the thorax, axial"))
    log.append(correction("d3", "Something else"))
    teaching.accept(teaching.templates()[0].template.id, "Dr B")
    assert ask(teaching, "d3").text == "Something else"


def test_refused_template_is_neither_proposed_again_nor_applied(teaching, log):
    log.append(correction("d1", "MRI of the head, sagittal"))
    log.append(correction("d2", "CT of the thorax, axial"))
    template = teaching.templates()[0].template.id
    teaching.accept(template, "Dr B")
    teaching.refuse(template, "Dr C")
    assert ask(teaching, "d3") is None
    assert [(each.state, each.decision.version) for each in teaching.templates()] == [
        ("refused", 2)
    ]


def test_template_without_two_corrections_left_is_not_applied(teaching, log):
    log.append(first := correction("d1", "MRI of the head, sagittal"))
    log.append(correction("d2", "CT of the thorax, axial"))
    teaching.accept(teaching.templates()[0].template.id, "Dr B")
    log.withdraw(first.id, "Dr A")
    assert ask(teaching, "d3") is None
    assert [each.state for each in teaching.templates()] == ["unsupported"]


def test_newer_template_of_a_question_replaces_the_older(teaching, log):
    log.append(correction("d1", "MRI of the head, sagittal"))
    log.append(correction("d2", "CT of the thorax, axial"))
    teaching.accept(teaching.templates()[0].template.id, "Dr B")
    log.append(correction("d1", "head sagittal (MRI)"))
    log.append(correction("d2", "thorax axial (CT)"))
    [new, old] = teaching.templates()
    teaching.accept(new.template.id, "Dr B")
    assert ask(teaching, "d3").text == "abdomen coronal (CT)"
    assert {each.state for each in teaching.templates()} == {"accepted", "replaced"}


def test_second_reader_must_agree_before_a_template_is_proposed_if_the_server_asks_for_two(
    log, tmp_path
):
    decisions = Decisions(decisions_path(tmp_path))
    teaching = Teaching(log, decisions, fields=lambda digest: FIELDS.get(digest, {}), confirm=2)
    for author in ("Dr A", "Dr B"):
        assert teaching.templates() == []
        log.append(correction("d1", "MRI of the head, sagittal", author=author))
        log.append(correction("d2", "CT of the thorax, axial", author=author))
    assert len(teaching.templates()) == 1


def test_unknown_template_and_nameless_decision_are_refused(teaching, log):
    with pytest.raises(NotFoundError, match="template"):
        teaching.accept("unknown", "Dr B")
    log.append(correction("d1", "MRI of the head, sagittal"))
    log.append(correction("d2", "CT of the thorax, axial"))
    with pytest.raises(RequestError, match="author"):
        teaching.accept(teaching.templates()[0].template.id, " ")


def test_decision_of_another_process_is_followed(teaching, log, tmp_path):
    log.append(correction("d1", "MRI of the head, sagittal"))
    log.append(correction("d2", "CT of the thorax, axial"))
    template = teaching.templates()[0].template
    assert ask(teaching, "d3") is None
    other = Decisions(decisions_path(tmp_path))
    other.decide(template, "accepted", "Dr B")
    assert ask(teaching, "d3").source == "wording"
    other.decide(template, "refused", "Dr B")
    assert ask(teaching, "d3") is None


def test_correction_agrees_although_a_field_of_its_study_is_wrong():
    rows = [
        correction("d1", "MRI of the head, axial"),  # the field says sagittal
        correction("d2", "CT of the thorax, axial"),
        correction("d3", "CT of the abdomen, coronal"),
    ]
    [first, *_] = propose(rows, known)
    assert first.text == "{modality} of the {region}, {plane}"
    assert len(first.corrections) == 3


def test_decisions_survive_a_restart_and_another_file_is_refused(teaching, log, tmp_path):
    log.append(correction("d1", "MRI of the head, sagittal"))
    log.append(correction("d2", "CT of the thorax, axial"))
    made = teaching.accept(teaching.templates()[0].template.id, "Dr B")
    [found] = Decisions(decisions_path(tmp_path)).all()
    assert (found.version, found.author, found.template.text) == (1, "Dr B", made.template.text)
    with pytest.raises(StorageError, match="something else"):
        Decisions(log.path)
