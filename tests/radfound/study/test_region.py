import math

import pytest

from radfound.exceptions import RequestError
from radfound.study.region import region_from_json, region_to_json


def test_normal_of_a_slice_comes_out_with_length_one():
    region = region_from_json({"slice_mm": {"point": [1, 2, 3], "normal": [0, 3, -4]}})
    assert region_to_json(region) == {
        "slice_mm": {"point": [1.0, 2.0, 3.0], "normal": [0.0, 0.6, -0.8]}
    }


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
        region_from_json(region)


def test_region_that_was_read_once_is_read_again_as_it_is():
    once = region_from_json({"slice_mm": {"point": [1, 2, 3], "normal": [0.3, -0.7, 0.11]}})
    assert region_from_json(region_to_json(once)) == once


def test_equal_regions_are_one_key_of_a_cache():
    box = {"box_mm": [[0, 0, 0], [1, 1, 1.5]]}
    assert len({region_from_json(box), region_from_json(box)}) == 1
