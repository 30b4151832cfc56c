import pytest

from radfound.datasets import Kit
from radfound.datasets.texts import iu_reports, medpix_topics, radiology_texts, roco_captions


@pytest.fixture
def small_kit(tmp_path, write):
    report = {
        "findings": "The lungs are clear. No XXXX.",
        "impression": "Normal chest.",
        "split": "train",
    }
    held_out = {"findings": "Held out.", "impression": None, "split": "test"}
    caption = {"caption": " Axial CT of the pelvis (arrow).", "split": "validation"}
    cases = [{"id": "medpix-A", "split": "train"}, {"id": "medpix-B", "split": "train"},
             {"id": "medpix-C", "split": "test"}]  # fmt: skip
    topics = [
        {
            "title": "Ovarian torsion",
            "text": "•  It is rare.\n•  See Smith et al. 1999",
            "case_id": "A",
        },
        {"title": "Meningioma", "text": "A common neoplasm.", "case_id": "B"},
        {"title": "Meningioma", "text": "Often seen.", "case_id": "C"},
    ]
    write(tmp_path / "manifest.json", {})
    write(tmp_path / "captions" / "medpix_captions.jsonl", "")
    write(tmp_path / "reports" / "iu_xray_text_only.jsonl", [report, held_out], lines=True)
    rows = [caption, caption | {"split": "test"}]
    write(tmp_path / "text" / "roco_captions_text_only.jsonl", rows, lines=True)
    write(tmp_path / "reports" / "medpix_cases.jsonl", cases, lines=True)
    write(tmp_path / "text" / "medpix_topics.jsonl", topics, lines=True)
    return tmp_path


def test_texts_hold_no_test_split_and_no_topic_of_a_held_out_case(small_kit):
    assert list(radiology_texts(small_kit)) == [
        "Findings: The lungs are clear.\nImpression: Normal chest.",
        "Axial CT of the pelvis (arrow).",
        "Ovarian torsion. It is rare.",
    ]


def test_the_kit_gives_thousands_of_tidy_texts(kit):
    data = Kit(kit)
    counts = [len(list(source(data))) for source in (iu_reports, roco_captions, medpix_topics)]
    assert counts[0] > 2800 and counts[1] > 3000 and counts[2] > 300
    texts = list(radiology_texts(kit))
    assert not any("XXXX" in text or "•" in text or "  " in text for text in texts)
