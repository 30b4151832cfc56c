import pytest

from training.fields.composed import loops


@pytest.mark.parametrize(
    ("text", "is_loop"),
    [
        ("Axial T2-weighted MR image of the head.", False),
        ("heterogeneous, heterogeneous, heterogeneous", True),
        ("1. Chest CT: 1. Chest CT: 1. Chest CT:", True),
        ("A mass of the mass in the mass.", False),
    ],
)
def test_a_text_that_repeats_its_words_loops(text, is_loop):
    assert loops(text) is is_loop
