"""Controls that tell looking from guessing, on answers whose worth is known."""

import numpy as np
import pytest

from radfound.benchmark.controls import alike_patients
from radfound.benchmark.looking.leads import leads_by_kind
from radfound.benchmark.looking.noise import UNANSWERABLE, least_move
from radfound.benchmark.looking.pairs import chances_of_yes, opposite_pairs, pair_rows
from radfound.benchmark.looking.words import WordPredictors, image_disjoint, word_answers
from radfound.benchmark.runner import ALIKE, BLANK, MAJORITY, MODEL, NEAREST, OTHER, WORDS, Run
from radfound.benchmark.scoring.rank import LABEL_TOKENS, effective_rank, free_token_mean
from radfound.benchmark.tasks import NEW_IMAGE, Item, Source, Task
from radfound.datasets import Example, Turn
from radfound.engine.protocol import Abilities, Description
from radfound.engine.silence.live import Move
from radfound.engine.stream import Stream, Token
from radfound.exceptions import DatasetError


def item(text, answer, patient="p", group="closed", name="", split="test", source="s", **labels):
    example = Example(patient, (f"{patient}.png",), (), labels, source=source, split=split)
    return Item(name or f"{patient}/{text}", example, Turn("vqa", (text,), answer), group, (group,))


# Rank


def test_the_rank_of_vectors_in_k_equal_directions_is_k():
    vectors = np.concatenate([np.eye(6), -np.eye(6)])
    assert effective_rank(vectors) == pytest.approx(6)
    assert effective_rank(vectors[:, :2] + 5) == pytest.approx(2)


def test_vectors_that_do_not_differ_have_no_rank():
    assert effective_rank(np.ones((5, 3))) == effective_rank(np.ones((1, 3))) == 0


def test_tokens_that_are_taught_labels_are_left_out():
    tokens = np.zeros((LABEL_TOKENS + 2, 4))
    tokens[LABEL_TOKENS:] = 3
    assert free_token_mean(tokens).tolist() == [3, 3, 3, 3]


# Another patient of the same kind


def test_another_patient_is_of_the_same_modality_and_region_where_there_is_one():
    items = [
        item("?", "", "a", modality="CT", region="head"),
        item("?", "", "b", modality="CT", region="thorax"),
        item("?", "", "c", modality="CT", region="head"),
        item("?", "", "d", modality="MRI", region="thorax"),
    ]
    found, how = alike_patients(items, lambda example: example.labels, 0)
    assert [each.key for each in found] == ["c", "d", "a", "b"]
    assert how == {"modality and region": 2, "region": 2}


def test_what_is_asked_is_not_what_is_matched():
    items = [
        item("Which modality?", "CT", "a", "modality", modality="CT", region="head"),
        item("Which modality?", "MRI", "b", "modality", modality="MRI", region="head"),
        item("Which modality?", "CT", "c", "modality", modality="CT", region="thorax"),
    ]
    found, how = alike_patients(items, lambda example: example.labels, 0)
    assert [each.key for each in found[:2]] == ["b", "a"]
    assert how == {"region": 2, "nothing": 1}


def test_one_patient_has_no_other():
    with pytest.raises(DatasetError, match="one patient"):
        alike_patients([item("?", ""), item("!", "")], lambda example: {}, 0)


# Words alone

TRAINING = [
    *(item("Is there a mass?", "Yes", f"t{k}") for k in range(3)),
    *(item("Is there a fracture?", "No", f"u{k}") for k in range(3)),
    item("Where is the mass?", "left lung", "v", "open"),
    item("Where is the stone?", "kidney", "w", "open"),
]


def test_both_predictors_answer_from_the_words():
    closed = WordPredictors([each for each in TRAINING if each.group == "closed"])
    asked = ["Is there a mass here?", "Is a fracture seen?"]
    assert closed.regression(asked) == closed.nearest(asked) == ["Yes", "No"]
    answers, sure = closed.sure_regression(asked)
    assert answers == ["Yes", "No"] and (sure > 0.5).all()


def test_one_answer_alone_needs_no_regression():
    assert WordPredictors([TRAINING[0]]).regression(["Is it?"]) == ["Yes"]


def test_an_image_that_is_new_to_the_model_is_new_to_the_words_too():
    known = [*TRAINING, item("Is there a mass?", "No", "x"), item("Is there a mass?", "No", "x")]
    asked = item("Is there a mass?", "No", "x")
    new = Item("new", asked.example, asked.turn, "closed", ("closed" + NEW_IMAGE,))
    assert word_answers([new], known)[1] == ["Yes"]
    open_item = item("Where is the stone seen?", "kidney", "y", "open")
    assert word_answers([open_item], known)[1] == ["kidney"]


def test_folds_share_no_image():
    # Two questions about each image: who sees an image's other question knows the answer, nobody else does.
    items = [
        item(text, answer, f"p{k}")
        for k in range(40)
        for answer in [("yes", "no")[k % 2]]
        for text in (f"w{k}?", f"w{k}!")
    ]
    rows = {row["row"]: row for row in image_disjoint(items)}
    assert rows["closed"]["n"] == rows["closed, yes or no"]["n"] == 80
    assert rows["closed"]["nearest"]["value"] < 0.8


# The same question about two pictures


class Brightness:
    """Thinks that bright pictures are a yes, or says the same of all."""

    def __init__(self, looks):
        self.looks = looks

    def describe(self):
        return Description("b", "r", None, 8, None, "", Abilities("all", score=True, choose=True))

    def choose(self, study, question, options, *, adapter):
        yes = float(study.images[0].voxels.mean() / 255) if self.looks else 0.5
        return {"yes": yes, "no": 1 - yes}

    def score(self, study, question, text, *, adapter):
        return float(np.log(self.choose(study, question, (), adapter=None)["yes"] * 0.5 + 0.25))

    def stream(self, study, question, *, adapter, limit):
        stream = Stream()
        stream.put(Token("Yes", self.score(study, question, "Yes", adapter=None)))
        stream.end()
        return stream


def axial(own_data, split="test"):
    return [
        i for i in Source(str(own_data)).items("vqa", split) if i.question.text == "Is it axial?"
    ]


def test_a_model_that_looks_ranks_every_pair_right_and_a_blind_one_half(own_data):
    pairs = opposite_pairs(axial(own_data))
    assert len(pairs) == 16
    rows = pair_rows(pairs, chances_of_yes(Brightness(True), pairs), set())
    assert rows[0]["right"]["value"] == 1 and [row["row"] for row in rows] == [
        "all pairs", "one or none trained on",
    ]  # fmt: skip
    blind = pair_rows(pairs, chances_of_yes(Brightness(False), pairs), {"no"})
    assert blind[0]["right"]["value"] == 0.5 and blind[0]["questions"] == 1


def test_no_pair_is_of_one_picture():
    assert opposite_pairs([item("Is it?", "yes"), item("Is it?", "no")]) == []


# Leads by kind


def run_of(right, words, name="vqa"):
    items = [item("Is there a mass?", "Yes", f"p{k}") for k in range(30)]
    columns = {
        MODEL: right, BLANK: 0, OTHER: 0, ALIKE: 5, WORDS: words, NEAREST: 0, MAJORITY: 0,
    }  # fmt: skip
    answers = {
        column: ["Yes, there is."] * count + ["No"] * (30 - count)
        for column, count in columns.items()
    }
    return Run(Task(name, tuple(items), ()), answers, [None] * 30)


def test_the_nearest_control_decides_the_lead():
    found = leads_by_kind([run_of(20, 10)])
    assert set(found) == {"presence", "finding"}
    row = found["presence"]
    assert (row["n"], row["over"]) == (30, "words alone")
    assert row["lead"]["value"] == pytest.approx(1 / 3) and row["lead"]["low"] > 0
    assert leads_by_kind([run_of(20, 20)])["presence"]["lead"]["low"] <= 0


def test_trained_questions_and_too_few_say_nothing():
    assert leads_by_kind([run_of(20, 10, "trained")]) == {}
    few = run_of(20, 10)
    task = Task("vqa", few.task.items[:15], ())
    assert (
        leads_by_kind([Run(task, {c: a[:15] for c, a in few.answers.items()}, [None] * 15)]) == {}
    )


# The threshold of the live check


def test_the_threshold_is_what_questions_move_that_no_picture_answers(own_data):
    class Live:
        def is_checked(self, answer):
            return True

        def move(self, study, question, answer, adapter):
            return Move(0.5, (0.5 + 0.01 * UNANSWERABLE.index(question.text),))

    examples = [each.example for each in axial(own_data)]
    assert least_move(Brightness(False), Live(), examples) == pytest.approx(0.07)
    Live.is_checked = lambda self, answer: False
    assert least_move(Brightness(False), Live(), examples) is None
