import zlib

import numpy as np
import pytest

from radfound.correction import Correction
from radfound.question import CANNOT_TELL, Question
from radfound.records.corrections import CorrectionLog
from radfound.teaching import Teaching
from radfound.teaching.decisions import Decisions
from radfound.teaching.effect import Unread, effect_of
from radfound.teaching.heads import fit_head
from radfound.teaching.logistic import Span

CONTRAST = "Was contrast given?"
WIDTH = 64


def vector(study: str) -> np.ndarray:
    """Features of a study: the first numbers say whether contrast was given; a photo is far from all studies."""
    chance = np.random.default_rng(zlib.crc32(study.encode()))
    found = 0.3 * chance.normal(size=WIDTH) + np.where(np.arange(WIDTH) < 20, 2.0, 0.0)
    found[:16] += 0.3 * (1 if is_given(study) else -1)
    return -found if study.startswith("photo") else found


def is_given(study: str) -> bool:
    return int(study[-1]) % 2 == 0


def correction(number: int, given: bool | None = None, **changes) -> Correction:
    study = f"s{number}"
    given = is_given(study) if given is None else given
    fields = {
        "images": (study,),
        "task": "vqa",
        "question": CONTRAST,
        "model_text": "No",
        "verdict": "edited" if given else "accepted",
        "text": "Yes" if given else "",
        "author": "Dr A",
        "image_hash": study,
    }
    return Correction(**{**fields, **changes})


@pytest.fixture
def log(tmp_path) -> CorrectionLog:
    return CorrectionLog(tmp_path / "corrections.sqlite")


@pytest.fixture
def teaching(log, tmp_path) -> Teaching:
    return Teaching(log, Decisions(tmp_path / "templates.sqlite"), features=vector)


def ask(teaching, study="s101", question=CONTRAST):
    return teaching.after_answer(study, (study,), Question("vqa", question), "No")


def teach(log, count=30):
    for number in range(count):
        log.append(correction(number))


def test_closed_question_is_answered_by_a_head_on_other_studies(teaching, log):
    teach(log)
    yes, no = ask(teaching, "s100"), ask(teaching, "s101")
    assert (yes.source, yes.text, yes.model_text) == ("head", "Yes", "No")
    assert no.text == "No" and no.confidence > 0.7
    assert "held-out corrections" in yes.reason and yes.version.startswith("head ")
    assert ask(teaching, "s100", "Was contrast administered?").text == "Yes"
    assert ask(teaching, "s100", "Was oral contrast given?") is None


def test_corrected_study_is_recalled_and_not_predicted(teaching, log):
    teach(log)
    log.append(correction(100, given=False))
    assert (ask(teaching, "s100").source, ask(teaching, "s100").text) == ("recall", "No")


def test_too_few_corrections_and_one_answer_only_give_no_head(teaching, log):
    teach(log, 12)
    assert ask(teaching, "s100") is None
    same = [correction(number, given=True) for number in range(40)]
    assert fit_head(same, vector) is None


def test_free_texts_are_no_closed_set():
    rows = [correction(n, given=True, text=f"Finding number {n}.") for n in range(40)]
    assert fit_head(rows, vector) is None


def test_head_that_learnt_nothing_is_not_used(teaching, log):
    chance = np.random.default_rng(0)
    for number in range(60):
        log.append(correction(number, given=bool(chance.integers(2))))
    head = teaching.head(Question("vqa", CONTRAST))
    assert head is not None and not head.compared.is_better
    assert ask(teaching) is None


def test_head_no_better_than_the_model_is_not_used(teaching, log):
    for number in range(40):
        text = "Yes" if is_given(f"s{number}") else "No"
        log.append(correction(number, model_text=text, verdict="accepted", text=""))
    head = teaching.head(Question("vqa", CONTRAST))
    assert head.compared.base == 1.0 and not head.compared.is_better


def test_head_is_silent_about_a_picture_unlike_those_it_learnt_from(teaching, log):
    teach(log)
    assert ask(teaching, "photo1") is None
    assert ask(teaching, "s101") is not None


def test_withdrawn_corrections_are_forgotten_by_the_head(teaching, log):
    teach(log, 24)
    assert ask(teaching) is not None
    before = teaching.head(Question("vqa", CONTRAST)).version
    rows = log.rows()
    log.withdraw(rows[0].id, "Dr A")
    head = teaching.head(Question("vqa", CONTRAST))
    assert head.version != before and rows[0].id not in head.corrections
    for row in rows[1:10]:
        log.withdraw(row.id, "Dr A")
    assert ask(teaching) is None


def test_studies_of_one_patient_are_held_out_together():
    # Twins share their features and labels; with one patient for both, neither helps to guess the other.
    chance = np.random.default_rng(1)
    noise = {n: chance.normal(size=WIDTH) for n in range(40)}
    labels = chance.permutation(40) % 2
    rows = [correction(n, given=bool(labels[n // 2])) for n in range(80)]

    def twin(study: str) -> np.ndarray:
        return noise[int(study[1:]) // 2]

    apart = fit_head(rows, twin)
    together = fit_head(rows, twin, lambda row: str(int(row.image_hash[1:]) // 2))
    assert apart.compared.head > 0.7
    assert together.compared.head < 0.65 and not together.compared.is_better


def test_confidence_of_a_head_matches_its_share_of_right_answers():
    chance = np.random.default_rng(0)
    flipped = {f"s{n}": chance.random() < 0.2 for n in range(600)}
    rows = [correction(n, given=is_given(f"s{n}") != flipped[f"s{n}"]) for n in range(200)]
    head = fit_head(rows, vector)
    told = [head.answer(vector(f"s{n}"))[1] for n in range(300, 400)]
    assert np.mean(told) == pytest.approx(0.8, abs=0.08)


def test_fit_of_many_features_takes_milliseconds_and_finds_the_class():
    chance = np.random.default_rng(0)
    labels = np.arange(90) % 3
    features = chance.normal(size=(90, 1280))
    features[np.arange(90), labels] += 8
    fitted = Span.of(features).fit(labels, 3, 1000.0)
    assert (fitted.log_probabilities(features).argmax(1) == labels).mean() > 0.95


def test_effect_counts_the_unread_studies_whose_answer_changes(teaching, log):
    teach(log, 19)
    log.append(last := correction(19))
    unread = [Unread((f"s{n}",), f"s{n}", "No") for n in range(100, 120)]
    unread.append(Unread(("new",), None, "No"))
    found = effect_of(teaching, last.id, unread)
    changed = {each.images[0] for each in found.changes}
    assert changed <= {f"s{n}" for n in range(100, 120, 2)} and len(changed) >= 7
    assert {(each.before, each.after, each.source) for each in found.changes} == {
        ("No", "Yes", "head")
    }
    assert (found.examined, found.not_examined) == (20, 1)
    assert found.told() == f"this correction changes the answer on {len(changed)} unread studies"


def test_effect_counts_the_same_study_under_another_id_and_a_withdrawn_correction_changes_nothing(
    teaching, log
):
    log.append(made := correction(2))
    unread = [Unread(("copy",), "s2", "No"), Unread(("other",), "s4", "No")]
    found = effect_of(teaching, made.id, unread)
    assert [(each.images, each.after, each.source) for each in found.changes] == [
        (("copy",), "Yes", "recall")
    ]
    log.withdraw(made.id, "Dr A")
    assert effect_of(teaching, made.id, unread).changes == ()


def test_effect_names_the_template_that_a_correction_completes(log, tmp_path):
    fields = {"a": {"modality": "CT"}, "b": {"modality": "MRI"}, "c": {"modality": "CT"}}
    teaching = Teaching(
        log, Decisions(tmp_path / "t.sqlite"), fields=lambda digest: fields.get(digest, {})
    )
    question = {"question": "Name?", "verdict": "edited"}
    log.append(correction(0, image_hash="a", images=("a",), text="A CT study", **question))
    log.append(last := correction(1, image_hash="b", images=("b",), text="A MRI study", **question))
    [proposal] = effect_of(teaching, last.id, [Unread(("c",), "c", "CT")]).proposals
    assert (proposal.text, proposal.studies) == ("A {modality} study", 1)


def knowing(right, shift=0):
    """What a classifier knows that is right about so many studies of a hundred; `shift` makes it right of others."""

    def known(digest: str, question: str, answers) -> dict[str, float] | None:
        number = int(digest[1:]) + shift
        is_right = (number * 37) % 100 < right
        yes = 0.8 if is_given(digest) == is_right else 0.2
        return {answer: yes if answer == "Yes" else 1 - yes for answer in answers}

    return known


def blind(study: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(study.encode())).normal(size=WIDTH)


def judged(numbers, known):
    """Corrections of the classifier's answers."""
    for number in numbers:
        told = known(f"s{number}", CONTRAST, ("Yes", "No"))
        text = "Yes" if is_given(f"s{number}") else "No"
        said = max(told, key=told.get)
        yield correction(
            number,
            model_text=said,
            verdict="accepted" if said == text else "edited",
            text=text,
        )


def right_of(head, known, vectors, numbers=range(1000, 1200)):
    given = [
        head.answer(vectors(f"s{n}"), known(f"s{n}", CONTRAST, head.answers))[0] for n in numbers
    ]
    return np.mean(
        [(text == "Yes") == is_given(f"s{n}") for text, n in zip(given, numbers, strict=True)]
    )


def test_a_head_starts_from_what_a_classifier_knows():
    known = knowing(80)
    rows = list(judged(range(60), known))
    alone, informed = fit_head(rows, blind), fit_head(rows, blind, known=known)
    assert right_of(alone, known, blind) < 0.65 < 0.75 < right_of(informed, known, blind)
    assert informed.adds_to_known and not alone.adds_to_known
    assert not informed.compared.is_better  # than the classifier's own answers


def test_a_head_adds_to_what_a_classifier_knows():
    known = knowing(80)
    head = fit_head(list(judged(range(60), known)), vector, known=known)
    assert head.compared.is_better and right_of(head, known, vector) > 0.9


def test_a_department_that_means_the_opposite_is_followed():
    known = knowing(5)
    head = fit_head(list(judged(range(60), known)), vector, known=known)
    assert head.compared.is_better and right_of(head, known, vector) > 0.9


def test_the_classifiers_answer_is_the_one_to_beat_whatever_the_reader_accepted():
    known = knowing(95)
    accepted = [
        correction(n, model_text="Yes" if is_given(f"s{n}") else "No", verdict="accepted", text="")
        for n in range(60)
    ]
    assert fit_head(accepted, vector).compared.base == 1.0
    assert fit_head(accepted, vector, known=known).compared.base == pytest.approx(0.95, abs=0.03)


def test_teaching_takes_the_chances_that_are_kept_of_a_study(log, tmp_path):
    known = knowing(80)

    def chances(digest: str):
        yes = known(digest, CONTRAST, ("Yes", "No"))["Yes"]
        return {"contrast": {"yes": yes, "no": 1 - yes}}

    teaching = Teaching(log, Decisions(tmp_path / "t.sqlite"), features=blind, chances=chances)
    for row in judged(range(60), known):
        log.append(row)
    head = teaching.head(Question("vqa", CONTRAST))
    assert head.adds_to_known and head.compared.base == pytest.approx(0.8, abs=0.05)
    assert teaching.over(log.rows()).head(Question("vqa", CONTRAST)).adds_to_known
    other = teaching.head(Question("vqa", "Is there a stent?"))
    assert other is None


def test_a_head_speaks_where_a_classifier_is_silent_and_else_leaves_it_alone(log, tmp_path):
    known = knowing(95)
    teaching = Teaching(
        log,
        Decisions(tmp_path / "t.sqlite"),
        features=vector,
        chances=lambda digest: {
            "contrast": {"yes": 0.9, "no": 0.1} if is_given(digest) else {"yes": 0.1, "no": 0.9}
        },
    )
    for row in judged(range(60), known):
        log.append(row)
    question = Question("vqa", CONTRAST)
    assert not teaching.head(question).compared.is_better
    assert teaching.after_answer("s100", ("s100",), question, "No") is None
    spoken = teaching.after_answer("s100", ("s100",), question, CANNOT_TELL)
    assert (spoken.source, spoken.text) == ("head", "Yes")
