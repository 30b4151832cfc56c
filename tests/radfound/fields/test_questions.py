import pytest

from radfound.datasets.metadata import METADATA_QUESTIONS
from radfound.fields.questions import answer_chances, asked_for

FINDINGS = ("pneumonia", "edema", "pleural effusion", "glioma", "malignant")


@pytest.mark.parametrize(
    ("question", "field"),
    [
        ("Which plane is this?", "plane"),
        ("In what plane was this image taken?", "plane"),
        ("What imaging modality was used to take this image?", "modality"),
        ("Is this a CT or an MRI?", "modality"),
        ("What part of the body is being imaged?", "region"),
        ("What is the MR weighting in this image?", "weighting"),
        ("Is this a T1 weighted, T2 weighted, or FLAIR image?", "weighting"),
        ("Is this a contrast or noncontrast CT?", "contrast"),
        ("Is this a PA or an AP film?", "projection"),
        ("Which projection is this?", "projection"),
        ("Which breast is this?", "side"),
        ("What is the breast density?", "density"),
    ],
)
def test_an_open_question_names_its_field(question, field):
    asked = asked_for(question)
    assert asked is not None
    assert (asked.field, asked.kind) == (field, field)


@pytest.mark.parametrize(
    ("field", "question"),
    [(field, question) for field, several in METADATA_QUESTIONS.items() for question in several],
)
def test_every_wording_of_the_metadata_questions_is_known(field, question):
    asked = asked_for(question)
    assert asked is not None
    assert asked.field == field


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("Is this a CT scan?", {"modality": "CT"}),
        ("Is this an axial CT image?", {"plane": "axial", "modality": "CT"}),
        ("Was contrast given?", {"contrast": "yes"}),
        ("Was IV contrast given to the patient?", {"contrast": "yes"}),
        ("Is this a noncontrast CT?", {"contrast": "no", "modality": "CT"}),
        ("Is this a T2 weighted image?", {"weighting": "T2"}),
        ("Is this an AP film?", {"projection": "AP"}),
        ("Is this an image of the brain?", {"region": "head"}),
    ],
)
def test_a_yes_or_no_question_proposes_values(question, wanted):
    asked = asked_for(question)
    assert asked is not None
    assert dict(asked.wanted) == wanted


@pytest.mark.parametrize(
    ("question", "findings"),
    [
        ("Is there pneumonia?", ("pneumonia",)),
        ("Is there evidence of a pleural effusion?", ("pleural effusion",)),
        ("Do you see pulmonary edema?", ("edema",)),
        ("Is there a glioma?", ("glioma",)),
        ("Does the lesion look malignant?", ()),
    ],
)
def test_a_yes_or_no_question_names_a_finding(question, findings):
    asked = asked_for(question, FINDINGS)
    assert (asked.findings if asked else ()) == findings


@pytest.mark.parametrize(
    "question",
    [
        "",
        "Where is the mass?",
        "Is there a fracture on this axial CT?",
        "Which plane shows the fracture best?",
        "What disease does the pathology suggest?",
        "How can you tell this is a T2 weighted image?",
        "What is the orientation of the patient?",
        "Was oral contrast given?",
        "Is there a pleural effusion in the left lower lobe?",
        "Can CT be used to assess soft tissues?",
    ],
)
def test_a_question_that_asks_for_more_than_a_field_is_left_alone(question):
    assert asked_for(question, FINDINGS) is None


def test_a_finding_without_a_head_is_left_alone():
    assert asked_for("Is there pneumonia?", ("glioma",)) is None


KNOWN = {
    "contrast": {"yes": 0.8, "no": 0.2},
    "modality": {"CT": 0.5, "MRI": 0.5},
    "projection": {"PA": 0.7, "AP": 0.2, "lateral": 0.1},
    "weighting": {"T1": 0.6, "T2": 0.4},
    "pneumonia": {"yes": 0.3, "no": 0.7},
}


@pytest.mark.parametrize(
    ("question", "answers", "expected"),
    [
        ("Was contrast given?", ("Yes", "no."), (0.8, 0.2)),
        ("Is this a contrast-enhanced CT?", ("yes", "no"), (0.4, 0.6)),
        ("Is this a contrast or noncontrast CT?", ("With contrast", "unenhanced"), (0.8, 0.2)),
        ("Is this a PA or an AP film?", ("PA view", "ap"), (0.7, 0.2)),
        ("What is the MR weighting in this image?", ("T1-weighted", "T2w"), (0.6, 0.4)),
        ("Is there pneumonia?", ("Yes", "No"), (0.3, 0.7)),
    ],
)
def test_answers_of_readers_have_the_chances_of_the_values_that_they_name(
    question, answers, expected
):
    found = answer_chances(question, answers, KNOWN)
    assert found == pytest.approx(dict(zip(answers, expected, strict=True)))


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("Was contrast given?", ("Yes", "Cannot be judged")),
        ("Was oral contrast given?", ("Yes", "No")),
        ("Where is the lesion?", ("Yes", "No")),
        ("Which plane is this?", ("Axial", "Coronal")),
        ("Is there edema?", ("Yes", "No")),
        ("What is the MR weighting in this image?", ("T1", "T1 after gadolinium")),
    ],
)
def test_other_answers_and_what_is_not_known_have_no_chances(question, answers):
    assert answer_chances(question, answers, KNOWN) is None
