import math

import pytest

from radfound.exceptions import RequestError
from radfound.study.region import parse_region


def test_normal_of_a_slice_comes_out_with_length_one():
    region = parse_region({"slice_mm": {"point": [1, 2, 3], "normal": [0, 3, -4]}})
    assert region == {"slice_mm": {"point": [1.0, 2.0, 3.0], "normal": [0.0, 0.6, -0.8]}}


@pytest.mark.parametrize(
    ("part", "region"),
    [
        ("region", {}),
        ("region", {"sphere_mm": [0, 0, 0]}),
        ("region", {"box_mm": [[0, 0, 0], [1, 1, 1]], "slice_mm": {}}),
        ("region.box_mm", {"box_mm": [[0, 0, 0]]}),
        ("region.box_mm", {"box_mm": [[0, 0, 0], [1, 0, 1]]}),
        (r"region.box_mm\[1\]", {"box_mm": [[0, 0, 0], [1, math.inf, 1]]}),
        (r"region.box_mm\[0\]", {"box_mm": [[0, math.nan, 0], [1, 1, 1]]}),
        (r"region.box_mm\[0\]", {"box_mm": [[0, 0], [1, 1]]}),
        (r"region.box_mm\[0\]", {"box_mm": [[0, 0, "0"], [1, 1, 1]]}),
        ("region.slice_mm", {"slice_mm": [0, 0, 0]}),
        ("region.slice_mm.point", {"slice_mm": {"normal": [0, 0, 1]}}),
        ("region.slice_mm.normal", {"slice_mm": {"point": [0, 0, 0], "normal": [0, 0, 0]}}),
    ],
)
def test_region_without_extent_or_shape_is_refused_by_the_name_of_its_part(part, region):
    with pytest.raises(RequestError, match=f"^{part}: "):
        parse_region(region)


def test_region_that_was_read_once_is_read_again_as_it_is():
    once = parse_region({"slice_mm": {"point": [1, 2, 3], "normal": [0.3, -0.7, 0.11]}})
    assert parse_region(once) == once
