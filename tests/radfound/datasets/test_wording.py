import pytest

from radfound.datasets import Kit
from radfound.datasets.wording import (
    figure_caption,
    findings_of_figures,
    radiographic_findings,
    report_text,
    sentences,
    tidy,
    whole_sentences,
)


@pytest.mark.parametrize(
    "text, said",
    [
        ("•  Large mass\n•  No effusion", "Large mass. No effusion"),
        ("-large plaque\n-severe stenosis of 64%", "Large plaque. Severe stenosis of 64%"),
        (
            "mass adjacent to the lateral\nsuperior patella",
            "mass adjacent to the lateral superior patella",
        ),
        ("heterogeneous signal on\nT2", "heterogeneous signal on T2"),
        ("Three\tspaces\u00a0 and a\u200b “quote”", 'Three spaces and a "quote"'),
        ("< li > Well circumscribed mass", "Well circumscribed mass"),
        ("No fracture is seen.Axial CT shows one .", "No fracture is seen. Axial CT shows one."),
        (None, ""),
    ],
)
def test_texts_become_one_line_of_sentences(text, said):
    assert tidy(text) == said


def test_abbreviations_and_numbers_do_not_end_a_sentence():
    text = "Mass of approx. 3.2 cm, i.e. large. 1. Left kidney. No stone."
    assert sentences(text) == [
        "Mass of approx. 3.2 cm, i.e. large.",
        "1. Left kidney.",
        "No stone.",
    ]


def test_shortening_keeps_whole_sentences():
    text = (
        "There is a mass in the liver. It enhances early and washes out late in the portal phase."
    )
    assert whole_sentences(text, 60) == "There is a mass in the liver."
    assert whole_sentences("Right renal complex cyst", 60) == "Right renal complex cyst."


def test_a_sentence_too_long_is_cut_where_a_clause_begins():
    text = "Axial CT shows a large mass of the left kidney extending into the renal vein and the vena cava"
    assert whole_sentences(text, 70) == "Axial CT shows a large mass of the left kidney."
    assert whole_sentences("Enhancing " * 20, 60).endswith("Enhancing.")


@pytest.mark.parametrize(
    "caption",
    [
        "Figure 1",
        "CT image 4 of 6",
        "IN PROGRESS",
        "Ependymoma",
        "MRI Image",
        None,
        "",
        "Replace this - DESCRIPTION OF THE IMAGE OR FINDINGS.",
        "Can you describe the finding?",
        "A-P radiograph of the right shoulder shows a defect.",
    ],
)
def test_captions_that_say_nothing_of_a_ct_or_mr_figure_are_left_out(caption):
    assert figure_caption(caption, 180) == ""


def test_a_caption_loses_its_figure_number_and_what_it_says_of_other_pictures():
    caption = "Figure 3: Chest radiograph shows an opacity. CT shows a mass in the left lung"
    assert figure_caption(caption, 180) == "CT shows a mass in the left lung."
    assert figure_caption("Coronal T2 MRI with fat saturation", 180).startswith("Coronal T2")


def test_findings_keep_to_the_pictures_that_are_there():
    findings = "CT: Large pelvic mass.\n\nUS: Enlarged right ovary."
    assert findings_of_figures(findings, 170) == "CT: Large pelvic mass."
    note = "A 61-year-old man presented with fever. Chest X-ray shows bilateral opacities."
    assert radiographic_findings(note, 180) == "Chest X-ray shows bilateral opacities."


def test_an_absent_section_is_left_out_of_a_report():
    assert report_text("Clear.", "Normal.") == "Findings: Clear.\nImpression: Normal."
    assert report_text("", "Normal.") == "Impression: Normal."


def test_texts_of_the_kit_end_in_a_full_stop_and_hold_no_bullets(kit):
    data = Kit(kit)
    examples = [*data.medpix_figures(), *data.medpix_cases(), *data.radiographs()]
    spoken = [t.answer for e in examples for t in e.turns if t.task in ("caption", "report")]
    assert len(spoken) > 2000
    assert [text for text in spoken if text[-1] not in ".!?"] == []
    assert [text for text in spoken if set(text) & set("•*\t\r\u00a0") or "  " in text] == []
