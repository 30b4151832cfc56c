import pytest

from radfound.engine.hidden import HiddenText, hide
from radfound.engine.stream import Token

MARKS = (("<think>", "</think>"), ("<unused94>", "<unused95>"))


def visible(pieces, **options):
    hidden = HiddenText(MARKS, **options)
    tokens = [Token(piece, -float(n)) for n, piece in enumerate(pieces)]
    return [each for token in tokens + [Token("", -99.0, last=True)] for each in hidden.feed(token)]


def text(tokens):
    return "".join(each.text for each in tokens)


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize(
    "answer",
    [
        "<think>a < b</think>\n\nNo.",
        "<unused94>thought\nlong</think><unused95>No.",
        "N<think></think>o.",
        "<think>one</think><think>two</think>No.",
    ],
)
def test_thinking_is_hidden_however_the_text_is_cut_into_tokens(answer, size):
    pieces = [answer[n : n + size] for n in range(0, len(answer), size)]
    assert text(visible(pieces)) == "No."


def test_text_that_looks_like_a_mark_at_first_is_kept():
    assert text(visible(["a <", "th", "in", "g> <"])) == "a <thing> <"


def test_hidden_tokens_do_not_count_in_the_confidence():
    tokens = visible(["<think>", "well", "</think>", "No", "."])
    assert [each.log_probability for each in tokens] == [-3.0, -4.0, -99.0]


def test_tokens_are_not_held_back_without_need():
    hidden = HiddenText(MARKS)
    assert [each.text for each in hidden.feed(Token("No"))] == ["No"]


def test_a_prompt_that_opens_the_thinking_hides_the_beginning():
    assert text(visible(["hm", "</thi", "nk>", " No."], begins_inside=True)) == "No."


def test_thinking_that_never_ends_gives_no_text_and_the_stop_token():
    tokens = visible(["<think>", "hm"])
    assert [(each.text, each.last) for each in tokens] == [("", True)]


def test_a_whole_text_is_cut_too():
    assert hide("<unused94>thought<unused95>Final Answer: yes", MARKS) == "Final Answer: yes"
