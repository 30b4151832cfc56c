import pytest

from radfound.teaching.questions import exact_key, needs_history, question_key, same_answer

SAME = [
    ("Is there a pleural effusion?", "Are there pleural effusions?"),
    ("Is there a pleural effusion?", "Is a pleural effusion present?"),
    ("Is there an effusion in the left lung?", "Does the left lung have an effusion?"),
    ("Is there evidence of haemorrhage?", "is there HEMORRHAGE"),
    ("Where is the mass?", "What is the location of the mass?"),
    ("Where is the mass?", "Where is the mass located?"),
    ("What modality is this image?", "Which modality is this?"),
    ("How many masses are there?", "How many masses are visible in the image?"),
    ("Was IV contrast given?", "Was intravenous contrast administered?"),
    ("Isn't there a fracture?", "Is there not a fracture?"),
]
OTHER = [
    ("Is there an effusion on the left?", "Is there an effusion on the right?"),
    ("Is there an effusion?", "Is there no effusion?"),
    ("Is the heart normal?", "Is the heart abnormal?"),
    ("Is the heart normal?", "Is the heart not normal?"),
    ("Is there an effusion?", "Is there a pneumothorax?"),
    ("Is there an effusion?", "Is there an effusion on the left?"),
    ("Is there a mass in the liver?", "Is there a mass in the spleen?"),
    ("Is there a mass?", "Is there mass effect?"),
    ("Is there a mass?", "Where is the mass?"),
    ("Is there a mass?", "How many masses are there?"),
    ("Are there more than 3 nodules?", "Are there more than 5 nodules?"),
    ("Is the nodule larger than 1.5 cm?", "Is the nodule larger than 15 cm?"),
    ("Are there >12 ribs?", "Are there <12 ribs?"),
    ("Is the left lung larger than the right?", "Is the right lung larger than the left?"),
    ("Does the mass displace the ventricle?", "Does the ventricle displace the mass?"),
    (
        "Is there an effusion on the left and a nodule on the right?",
        "Is there a nodule on the left and an effusion on the right?",
    ),
    ("Is this with contrast?", "Is this without contrast?"),
    ("Is the lesion above the diaphragm?", "Is the lesion below the diaphragm?"),
    ("Is this a PA film?", "Is this an AP film?"),
    ("Can an effusion be ruled out?", "Is there an effusion?"),
    ("What are the locations of the lesions?", "What are the lesions?"),
    ("Is this T1 weighted?", "Is this T2 weighted?"),
    ("Is the lesion hyperdense?", "Is the lesion hypodense?"),
    ("Is the upper lobe collapsed?", "Is the lower lobe collapsed?"),
    ("Has the effusion increased?", "Has the effusion decreased?"),
    ("Is there a stage 1 tumour?", "Is there a stage 2 tumour?"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_question_in_other_words_is_the_same_question(first, second):
    assert question_key("vqa", first) == question_key("vqa", second)


@pytest.mark.parametrize(("first", "second"), OTHER)
def test_question_with_another_side_polarity_finding_or_number_is_another_question(first, second):
    assert question_key("vqa", first) != question_key("vqa", second)


def test_questions_without_content_are_the_same_only_word_for_word():
    assert question_key("vqa", "What is this?") != question_key("vqa", "Is this it?")
    assert question_key("vqa", "What is shown here?") == question_key("vqa", "what is shown here")


def test_caption_and_report_are_not_each_other():
    assert question_key("caption", None) != question_key("report", None)


@pytest.mark.parametrize("text", ["And on the left?", "Is it large?", "What about the heart?"])
def test_question_that_points_back_needs_its_history(text):
    assert needs_history(text)


def test_question_of_its_own_needs_no_history():
    assert not needs_history("Is there an effusion on the left?")


def test_same_words_ignore_case_spaces_and_marks():
    assert exact_key("vqa", " is there a mass ?") == exact_key("vqa", "Is there a mass?")
    assert same_answer("Yes.", " yes") and not same_answer("Yes", "No")
