import pytest

from radfound.datasets import read_slake, read_vqa_med_2019, read_vqa_rad
from radfound.datasets.questions import validation_question
from radfound.exceptions import DatasetError

VALIDATION_FAMILY = next(f"family-{n}" for n in range(99) if validation_question(f"family-{n}"))
TRAIN_FAMILY = next(f"family-{n}" for n in range(99) if not validation_question(f"family-{n}"))


def vqa_rad_row(qid, question, phrase_type="freeform", family=TRAIN_FAMILY, **other):
    return {
        "qid": qid,
        "phrase_type": phrase_type,
        "qid_linked_id": family,
        "image_case_url": "https://medpix.nlm.nih.gov/case?id=x",
        "image_name": "synpic54610.jpg",
        "image_organ": "HEAD",
        "evaluation": "not evaluated",
        "question": question,
        "question_rephrase": "NULL",
        "question_relation": "NULL",
        "question_frame": "NULL",
        "question_type": "PRES",
        "answer": "Yes",
        "answer_type": "CLOSED",
    } | other


@pytest.fixture
def vqa_rad(tmp_path, picture, write):
    picture(tmp_path / "VQA_RAD Image Folder" / "synpic54610.jpg")
    rows = [
        vqa_rad_row("0", "Is the brain infarcted?", question_rephrase="Are there infarcts?"),
        vqa_rad_row("1", "Where is it?", answer="Left", answer_type="OPEN "),
        vqa_rad_row("2", "Is there a mass?", family=VALIDATION_FAMILY),
        vqa_rad_row("3", "Is a mass seen?", "para", family=VALIDATION_FAMILY),
        vqa_rad_row("4", "Is this an MRI?", "test_freeform", family="t"),
        vqa_rad_row("5", "is this  an MRI?"),
    ]
    write(tmp_path / "VQA_RAD Dataset Public.json", rows)
    return tmp_path


def asked(examples):
    return [turn.questions for example in examples for turn in example.turns]


def test_vqa_rad_gathers_the_questions_about_an_image_with_their_wordings(vqa_rad):
    (example,) = read_vqa_rad(vqa_rad)
    first, second = example.turns
    assert first.questions == ("Is the brain infarcted?", "Are there infarcts?")
    assert (first.answer, first.kind, first.id) == ("Yes", "closed", "vqarad-0")
    assert (second.answer, second.kind) == ("Left", "open")
    assert (example.key, example.labels) == ("synpic54610", {"region": "head"})
    assert example.read().images[0].voxels.shape == (1, 30, 24)  # without the credit at its foot


def test_vqa_rad_keeps_its_test_split_and_families_together_in_validation(vqa_rad):
    assert asked(read_vqa_rad(vqa_rad, "test")) == [("Is this an MRI?",)]
    assert asked(read_vqa_rad(vqa_rad, "validation")) == [
        ("Is there a mass?",),
        ("Is a mass seen?",),
    ]


def test_vqa_rad_does_not_train_on_a_test_question_asked_in_the_same_words(vqa_rad):
    assert not any(
        "MRI" in wording for wordings in asked(read_vqa_rad(vqa_rad)) for wording in wordings
    )


@pytest.fixture
def slake(tmp_path, picture, write):
    picture(tmp_path / "imgs" / "xmlab102" / "source.jpg")
    row = {
        "img_id": 102,
        "img_name": "xmlab102/source.jpg",
        "question": "Does the picture contain liver?",
        "answer": "No",
        "q_lang": "en",
        "location": "Brain_Tissue",
        "modality": "MRI",
        "answer_type": "CLOSED",
        "base_type": "vqa",
        "content_type": "Organ",
        "triple": ["vhead", "_", "_"],
        "qid": 9840,
    }
    chinese = row | {"q_lang": "zh", "question": "图中有肝脏吗？", "answer": "没有", "qid": 9841}
    for name in ("train", "validate", "test"):
        write(tmp_path / f"{name}.json", [row, chinese])
    return tmp_path


def test_slake_is_read_in_the_language_asked_for(slake):
    (example,) = read_slake(slake, "validation")
    (turn,) = example.turns
    assert (turn.questions, turn.answer, turn.kind) == (
        ("Does the picture contain liver?",), "No", "closed",
    )  # fmt: skip
    assert example.labels == {"modality": "MRI", "region": "head"}
    assert (example.key, example.split, example.footer) == ("xmlab102", "validation", False)
    assert asked(read_slake(slake, language="zh")) == [("图中有肝脏吗？",)]


def test_vqa_med_is_read_from_its_three_archives(tmp_path, picture, write):
    training = tmp_path / "ImageClef-2019-VQA-Med-Training"
    picture(training / "Train_images" / "synpic41148.jpg")
    write(
        training / "All_QA_Pairs_train.txt",
        "synpic41148|what kind of image is this?|cta - ct angiography\n"
        "synpic41148|is this a \tt1 weighted image?|no\n",
    )
    test = tmp_path / "VQAMed2019Test"
    picture(test / "VQAMed2019_Test_Images" / "synpic54143.jpg")
    write(
        test / "VQAMed2019_Test_Questions_w_Ref_Answers.txt",
        "synpic54143|abnormality|what is abnormal?|(anaplastic) oligodendroglioma#cystic mass\n",
    )
    (example,) = read_vqa_med_2019(tmp_path)
    assert [turn.kind for turn in example.turns] == ["open", "closed"]
    assert example.turns[1].questions == ("is this a t1 weighted image?",)
    (example,) = read_vqa_med_2019(tmp_path, "test")
    assert example.turns[0].answer == "anaplastic oligodendroglioma"


@pytest.mark.parametrize("reader", [read_vqa_rad, read_slake, read_vqa_med_2019])
def test_a_set_that_is_not_there_is_named_with_what_to_do(tmp_path, reader):
    with pytest.raises(DatasetError, match=r"not found.*docs/data\.md"):
        list(reader(tmp_path))
    with pytest.raises(
        DatasetError, match="no split 'dev'; expected one of train, validation, test"
    ):
        list(reader(tmp_path, "dev"))


def test_a_malformed_row_is_named(vqa_rad, slake, write):
    with_gap = vqa_rad_row("9", "Is it?")
    del with_gap["answer"]
    write(vqa_rad / "VQA_RAD Dataset Public.json", [vqa_rad_row("8", "Is it?"), with_gap])
    with pytest.raises(DatasetError, match=r"Public\.json, row 2: no text in 'answer'"):
        list(read_vqa_rad(vqa_rad))
    write(slake / "test.json", '[{"img_id": 1')
    with pytest.raises(DatasetError, match=r"test\.json: not JSON"):
        list(read_slake(slake, "test"))
    write(slake / "train.json", {"rows": []})
    with pytest.raises(DatasetError, match="a dict, expected a list"):
        list(read_slake(slake))


def test_an_image_that_is_not_there_is_named_with_its_row(slake):
    (slake / "imgs" / "xmlab102" / "source.jpg").unlink()
    with pytest.raises(
        DatasetError, match=r"train\.json, row 1: names .*source\.jpg, which is not there"
    ):
        list(read_slake(slake))


def test_a_line_with_too_few_fields_is_named(tmp_path, picture, write):
    archive = tmp_path / "ImageClef-2019-VQA-Med-Validation"
    write(archive / "All_QA_Pairs_val.txt", "synpic1|what is it?\n")
    with pytest.raises(DatasetError, match=r"val\.txt, line 1: 2 fields, expected 3"):
        list(read_vqa_med_2019(tmp_path, "validation"))
