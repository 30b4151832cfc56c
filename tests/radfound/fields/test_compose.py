import pytest

from radfound.fields.compose import NOT_JUDGED, UNKNOWN_PICTURE, compose
from radfound.fields.values import FieldValue, FindingValue


def known(**values):
    return {name: FieldValue(value, 0.9, "picture") for name, value in values.items()}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            dict(modality="MRI", plane="axial", region="head", weighting="T2"),
            "Axial T2-weighted MR image of the head.",
        ),
        (
            dict(modality="CT", plane="coronal", region="abdomen", contrast="yes"),
            "Coronal contrast-enhanced CT image of the abdomen.",
        ),
        (dict(modality="X-ray", region="thorax", projection="PA"), "PA radiograph of the chest."),
        (dict(modality="mammography", side="left"), "Mammogram of the left breast."),
        (dict(modality="mammography", side="both"), "Mammogram of both breasts."),
        (dict(modality="ultrasound"), "Ultrasound image."),
    ],
)
def test_a_caption_says_the_known_fields_and_that_findings_cannot_be_judged(fields, sentence):
    assert compose(known(**fields), "caption") == f"{sentence} {NOT_JUDGED}"


def test_a_field_without_a_value_is_left_out():
    fields = known(modality="MRI", region="head") | {
        "plane": FieldValue(None, None, "picture", "The picture does not decide it.")
    }
    assert compose(fields, "caption").startswith("MR image of the head.")


def test_a_picture_of_an_unknown_kind_is_called_that():
    fields = {"modality": FieldValue(None, None, "picture", UNKNOWN_PICTURE)}
    assert compose(fields, "caption") == f"{UNKNOWN_PICTURE} {NOT_JUDGED}"


def test_a_report_has_findings_and_an_impression():
    finding = FindingValue(0.91, "learnt from adults' chest films")
    text = compose(known(modality="X-ray", region="thorax"), "report", {"pneumonia": finding})
    assert text.startswith("Findings: Radiograph of the chest. Pneumonia: likely (91 %; learnt ")
    assert "Impression: Pneumonia: likely" in text
    assert "Other findings cannot be judged" in text


def test_a_report_without_findings_concludes_nothing():
    text = compose(known(modality="CT"), "report")
    assert text == f"Findings: CT image. {NOT_JUDGED} Impression: {NOT_JUDGED}"


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="expected 'caption' or 'report'"):
        compose({}, "vqa")
