"""Hand-made sentences with what a radiologist takes them to say."""

import pytest

from radfound.benchmark.scoring.findings import COUNTED, compare_findings, find_findings

SHORT = {"+": "present", "-": "absent", "?": "uncertain"}
SIDES = {"L": {"left"}, "R": {"right"}, "B": {"left", "right"}, "": set()}

# text, then what it says: sign, finding, side after a slash
TABLE = [
    ("Effusion.", "+pleural effusion"),
    ("No effusion.", "-pleural effusion"),
    ("No pleural effusion or pneumothorax.", "-pleural effusion -pneumothorax"),
    (
        "No focal consolidation, pleural effusion, or pneumothorax is seen.",
        "-consolidation -pleural effusion -pneumothorax",
    ),
    ("There is no evidence of acute infarction.", "-infarct"),
    ("Without evidence of fracture.", "-fracture"),
    ("Cardiomegaly without pulmonary edema.", "+cardiomegaly -pulmonary edema"),
    ("Absence of hydronephrosis.", "-hydronephrosis"),
    ("The study is negative for pulmonary embolism.", "-pulmonary embolism"),
    ("The lungs are clear of consolidation.", "-consolidation"),
    ("The abdomen is free of ascites.", "-ascites"),
    ("The pneumothorax has resolved.", "-pneumothorax"),
    ("Interval resolution of the right pleural effusion.", "-pleural effusion/R"),
    ("The effusion has not resolved.", "+pleural effusion"),
    ("No change in the left pleural effusion.", "+pleural effusion/L"),
    ("Midline shift is not seen.", "-midline shift"),
    ("Pneumothorax is absent.", "-pneumothorax"),
    ("Effusion and pneumothorax are not identified.", "-pleural effusion -pneumothorax"),
    ("Consolidation is present, effusion is absent.", "+consolidation -pleural effusion"),
    ("No pneumothorax, but there is a small effusion.", "-pneumothorax +pleural effusion"),
    ("No effusion, the heart is enlarged.", "-pleural effusion +cardiomegaly"),
    ("No effusion and there is a rib fracture.", "-pleural effusion +fracture"),
    ("The scan does not show hydrocephalus.", "-hydrocephalus"),
    ("Neither hemorrhage nor infarct.", "-hemorrhage -infarct"),
    ("Not only a nodule but also a cavity.", "+nodule +cavity"),
    ("Effusion: none.", "-pleural effusion"),
    ("No mass except for a cyst in the right kidney.", "-mass +cyst/R"),
    ("Possible pneumonia.", "?pneumonia"),
    ("Pneumonia cannot be excluded.", "?pneumonia"),
    ("Cannot exclude a small pneumothorax.", "?pneumothorax"),
    ("No effusion, pneumonia is not excluded.", "-pleural effusion ?pneumonia"),
    ("Opacity which may represent atelectasis.", "+opacity ?atelectasis"),
    ("Atelectasis versus consolidation.", "?atelectasis ?consolidation"),
    ("Findings suspicious for metastatic disease.", "?metastasis"),
    ("Appendicitis is unlikely.", "?appendicitis"),
    ("?pneumonia", "?pneumonia"),
    ("Possible pneumonia, no effusion.", "?pneumonia -pleural effusion"),
    ("Left pleural effusion and right pneumothorax.", "+pleural effusion/L +pneumothorax/R"),
    ("Effusion on the left, pneumothorax on the right.", "+pleural effusion/L +pneumothorax/R"),
    ("Bilateral pleural effusions.", "+pleural effusion/B"),
    ("Right and left pleural effusions.", "+pleural effusion/B"),
    ("Pleural effusions, left greater than right.", "+pleural effusion/B"),
    ("Nodules in the left upper lobe and right lower lobe.", "+nodule/B"),
    ("In the right lung, there is a cavitary lesion.", "+cavity/R"),
    ("RUL collapse.", "+atelectasis/R"),
    ("Right lower lobe consolidation and atelectasis.", "+consolidation/R +atelectasis/R"),
    ("No left effusion; the right effusion persists.", "+pleural effusion/R"),
    ("The heart size is normal.", "-cardiomegaly"),
    ("The heart is not enlarged and there is no effusion.", "-cardiomegaly -pleural effusion"),
    ("The ventricles are normal in size.", "-hydrocephalus"),
    ("Subdural hematoma with mass effect.", "+subdural hematoma +mass effect"),
    ("Pericardial effusion, no pleural effusion.", "+pericardial effusion -pleural effusion"),
    ("Ground-glass opacities in both lungs.", "+ground-glass opacity/B"),
    ("Findings: No effusion.\nImpression: Pneumonia.", "-pleural effusion +pneumonia"),
    ("Normal study.", ""),
    ("", ""),
]


def readable(text):
    signs = {status: sign for sign, status in SHORT.items()}
    letters = {frozenset(sides): letter for letter, sides in SIDES.items()}
    said = [
        f"{signs[f.status]}{name}" + (f"/{letters[f.sides]}" if f.sides else "")
        for name, f in find_findings(text).items()
    ]
    return " ".join(sorted(said))


def expected(said):
    """Sort what a row of the table says; a sign begins each finding."""
    found = []
    for word in said.split():
        if word[0] in SHORT:
            found.append(word)
        else:
            found[-1] += f" {word}"
    return " ".join(sorted(found))


def test_the_table_has_at_least_forty_cases():
    assert len(TABLE) >= 40


@pytest.mark.parametrize(("text", "said"), TABLE, ids=[text or "nothing" for text, _ in TABLE])
def test_a_sentence_says_what_a_reader_takes_from_it(text, said):
    assert readable(text) == expected(said)


def counts(answer, truth):
    return dict(zip(COUNTED, compare_findings(answer, truth), strict=True))


def test_denying_what_the_reference_asserts_scores_zero():
    found = counts("No effusion", "Effusion")
    assert found["right"] == 0 and found["extra"] == found["missed"] == 1
    assert found["opposite"] == found["named_by_both"] == 1


def test_asserting_and_denying_alike_is_right():
    found = counts("Effusion. No pneumothorax.", "There is no pneumothorax. Small effusion.")
    assert (found["right"], found["extra"], found["missed"]) == (2, 0, 0)
    assert (found["present_right"], found["present_extra"], found["present_missed"]) == (1, 0, 0)


def test_the_wrong_side_is_counted_where_both_name_one():
    assert counts("Left effusion.", "Right effusion.")["wrong_side"] == 1
    assert counts("Left effusion.", "Bilateral effusions.")["wrong_side"] == 1
    assert counts("Right effusion.", "Effusion on the right.")["wrong_side"] == 0
    assert counts("Effusion.", "Right effusion.")["sides_compared"] == 0


def test_what_either_leaves_uncertain_counts_nowhere_else():
    found = counts("Possible pneumonia.", "Pneumonia. Effusion.")
    assert found["uncertain"] == 1
    assert (found["right"], found["extra"], found["missed"]) == (0, 0, 1)


def test_a_text_agrees_with_itself():
    for text, _ in TABLE:
        found = counts(text, text)
        assert found["extra"] == found["missed"] == found["opposite"] == found["wrong_side"] == 0
