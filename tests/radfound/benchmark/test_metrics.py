import math
import shutil

import numpy as np
import pytest

from radfound.benchmark.scoring.metrics import (
    Metric,
    accuracy,
    answer_metrics,
    balanced_accuracy,
    bleu_metrics,
    cider,
    closed_accuracy,
    closed_match,
    exact_match,
    finding_metrics,
    meteor,
    normalised,
    rouge_l,
    token_f1,
    token_recall,
)

TRUTHS = [
    "There is a large mass in the right upper lobe with a small effusion.",
    "No acute fracture of the cervical spine is seen on this study.",
    "Axial CT shows a ring enhancing lesion in the left frontal lobe.",
]
ANSWERS = [
    "There is a mass in the right upper lobe.",
    "No acute fracture is seen on this study of the spine.",
    "Axial CT of the abdomen shows a cyst in the left kidney.",
]


def score(metric: Metric, answers, truths):
    return float(metric.value(metric.statistics(answers, truths).sum(0)))


def test_normalising_drops_case_punctuation_and_articles():
    assert normalised("  The X-ray, of a Chest. ") == "x ray of chest"


@pytest.mark.parametrize(
    ("answer", "truth", "exact", "recall", "f1"),
    [
        ("Yes.", "yes", 1, 1, 1),
        ("right lung", "The right lung", 1, 1, 1),
        # one of two words found, one of three said: 2 * 1 / (3 + 2)
        ("in left lung", "right lung", 0, 1 / 2, 2 / 5),
        # a word counts as often as it stands in the truth
        ("lung lung", "lung", 0, 1, 2 / 3),
        ("lung", "lung lung", 0, 1 / 2, 2 / 3),
        ("", "lung", 0, 0, 0),
        ("lung", "the", 0, 0, 0),
    ],
)
def test_answers_are_scored_as_worked_by_hand(answer, truth, exact, recall, f1):
    assert exact_match(answer, truth) == exact
    assert token_recall(answer, truth) == pytest.approx(recall)
    assert token_f1(answer, truth) == pytest.approx(f1)


def test_means_are_over_items():
    assert score(accuracy(), ["yes", "no"], ["Yes", "yes"]) == 0.5
    names = [metric.name for metric in answer_metrics()]
    assert names == ["exact match", "token recall", "token F1"]


def test_bleu_is_what_sacrebleu_gives_for_the_corpus():
    from sacrebleu.metrics.bleu import BLEU

    for order, metric in enumerate(bleu_metrics(), start=1):
        whole = BLEU(lowercase=True, max_ngram_order=order).corpus_score(ANSWERS, [TRUTHS]).score
        assert score(metric, ANSWERS, TRUTHS) == pytest.approx(whole / 100)


def test_bleu_1_is_clipped_precision_times_brevity_by_hand():
    metric = bleu_metrics()[0]
    # 3 of the 4 words are in the reference of 6: 3/4 * exp(1 - 6/4)
    found = score(metric, ["a big red mass"], ["a mass of big soft tissue"])
    assert found == pytest.approx(3 / 4 * math.exp(1 - 6 / 4))


def test_bleu_of_resampled_sums_keeps_its_shape():
    metric = bleu_metrics()[3]
    sums = metric.statistics(ANSWERS, TRUTHS).sum(0)
    assert metric.value(np.stack([sums, sums, sums])).shape == (3,)


def test_rouge_l_by_hand_and_by_another_library():
    # longest common subsequence "large mass the lobe" of 4: recall 4/6, precision 4/5
    answer, truth = "large mass near the lobe", "large soft mass in the lobe"
    assert score(rouge_l(), [answer], [truth]) == pytest.approx(2 * 4 / (6 + 5))
    from pycocoevalcap.rouge.rouge import Rouge

    other = Rouge().calc_score([answer], [truth])  # weighs recall by 1.2 squared
    recall, precision, beta2 = 4 / 6, 4 / 5, 1.2**2
    assert other == pytest.approx(
        (1 + beta2) * precision * recall / (recall + beta2 * precision), abs=1e-6
    )


def test_cider_rewards_the_words_that_few_references_hold():
    assert score(cider(), TRUTHS, TRUTHS) == pytest.approx(10.0)
    assert score(cider(), TRUTHS[1:] + TRUTHS[:1], TRUTHS) < 1
    # A word that every reference holds weighs nothing; others weigh log(3), so that answers which
    # share only "mass" score nothing.
    truths = ["mass liver", "mass brain", "mass lung"]
    assert score(cider(), ["mass cat"] * 3, truths) == pytest.approx(0.0)


def test_finding_scores_are_pooled_over_the_texts():
    values = {
        m.name: score(
            m, ["No effusion.", "Left fracture."], ["Effusion. Pneumonia.", "Right fracture."]
        )
        for m in finding_metrics()
    }
    # said: -effusion, +fracture; true: +effusion, +pneumonia, +fracture; one of them agrees
    assert values["finding F1"] == pytest.approx(2 * 1 / (2 + 3))
    assert values["present-finding F1"] == pytest.approx(2 * 1 / (1 + 3))
    assert values["polarity errors"] == pytest.approx(1 / 2)
    assert values["laterality errors"] == 1.0


def test_no_effusion_against_effusion_scores_zero():
    assert score(finding_metrics()[0], ["No effusion"], ["Effusion"]) == 0.0


def test_where_nothing_can_be_scored_the_score_is_not_a_number():
    assert math.isnan(score(finding_metrics()[0], ["Normal."], ["Normal."]))


def test_meteor_is_left_out_where_there_is_no_java(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert meteor() is None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR needs Java, which is not here")
def test_meteor_gives_a_text_itself_the_most():
    metric = meteor()
    assert score(metric, TRUTHS, TRUTHS) == pytest.approx(1.0, abs=0.01)
    assert 0 < score(metric, ANSWERS, TRUTHS) < 0.9


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("Yes", "yes", 1),
        ("Yes, there is an effusion.", "Yes", 1),
        ("There is no fracture.", "No", 1),
        ("No. It does not say yes.", "Yes", 0),
        ("It is normal.", "No", 0),
        ("", "No", 0),
        ("CT", "ct", 1),
        ("A CT", "MRI", 0),
    ],
)
def test_the_first_yes_or_no_of_a_sentence_counts(answer, truth, right):
    assert closed_match(answer, truth) == right


def test_who_always_says_no_has_half_of_the_balanced_accuracy():
    truths, answers = ["No"] * 9 + ["Yes", "CT"], ["No"] * 11
    metric = balanced_accuracy(("yes", "no"), closed_match)
    assert score(closed_accuracy(), answers, truths) == pytest.approx(9 / 11)
    assert score(metric, answers, truths) == 0.5
    parts = metric.statistics(answers, truths)
    assert parts.sum(0)[metric.counted] == 10  # "CT" is neither
    assert math.isnan(score(metric, ["CT"], ["CT"]))
    assert metric.value(np.stack([parts.sum(0), parts[:9].sum(0)])).tolist() == [0.5, 1.0]
