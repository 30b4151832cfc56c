import nibabel
import numpy as np
import pytest

from radfound.exceptions import IntensityError
from radfound.study.intensity import (
    apply_window,
    check_finite,
    looks_like_hounsfield,
    percentile_range,
    scale_between,
)


def percentile_scale(voxels, low=0.5, high=99.5):
    """Scale grey values as frames are scaled."""
    return scale_between(voxels, *percentile_range(voxels, low, high))


def test_window_maps_its_ends_to_zero_and_one():
    hu = np.array([[[-1000, -160, 40, 240, 3000]]], np.int16)
    scaled = apply_window(hu, 40, 400)
    np.testing.assert_allclose(scaled, [[[0, 0, 0.5, 1, 1]]])
    assert scaled.dtype == np.float32


def test_window_leaves_its_input_alone():
    hu = np.array([-100.0, 100.0], np.float32)
    apply_window(hu, 0, 10)
    np.testing.assert_array_equal(hu, [-100, 100])


@pytest.mark.parametrize("width", [0, -1, np.nan, np.inf])
def test_window_without_a_width_is_refused(width):
    with pytest.raises(IntensityError, match="positive width"):
        apply_window(np.zeros((1, 2, 2)), 40, width)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scale", [lambda v: apply_window(v, 0, 1), percentile_scale])
def test_values_that_are_no_numbers_are_refused(scale, bad):
    voxels = np.zeros((2, 3, 4), np.float32)
    voxels[1, 1, 1] = bad
    with pytest.raises(IntensityError, match="1 of 24 voxels"):
        scale(voxels)


def test_check_finite_names_the_file():
    with pytest.raises(IntensityError, match=r"^ct\.nii: 2 of 2 "):
        check_finite(np.array([np.nan, np.inf]), "ct.nii")


def test_check_finite_accepts_integers_and_nothing():
    check_finite(np.array([1, 2]))
    check_finite(np.empty(0, np.float32))


def test_percentiles_ignore_a_few_extreme_voxels():
    voxels = np.linspace(0, 100, 10_000, dtype=np.float32)
    voxels[:5] = 1e6
    scaled = percentile_scale(voxels)
    assert scaled[5_000] == pytest.approx(0.5, abs=0.01)
    assert scaled.min() == 0 and scaled.max() == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("value", [0, 7])
def test_constant_image_becomes_zeros(dtype, value):
    scaled = percentile_scale(np.full((2, 4, 4), value, dtype))
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, np.zeros((2, 4, 4)))


def test_one_bright_voxel_in_the_dark_stays_visible():
    voxels = np.zeros((8, 64, 64), np.int16)
    voxels[4, 32, 32] = 500
    assert percentile_scale(voxels)[4, 32, 32] == 1


def test_background_does_not_decide_the_contrast():
    rng = np.random.default_rng(0)
    tissue = rng.normal(500, 50, 4_000).clip(300, 700)
    alone = percentile_scale(tissue)
    framed = percentile_scale(np.concatenate([tissue, np.zeros(400_000)]))
    np.testing.assert_allclose(framed[:4_000], alone, atol=0.02)
    assert framed[4_000:].max() == 0


def test_percentiles_of_a_large_volume_come_from_every_column():
    voxels = np.tile(np.arange(512, dtype=np.int16), (24, 512, 1))
    scaled = percentile_scale(voxels, 0, 100)
    np.testing.assert_allclose(scaled[0, 0], np.arange(512) / 511, atol=0.01)


def test_unsigned_and_wide_integers_do_not_overflow():
    np.testing.assert_allclose(percentile_scale(np.array([0, 65535], np.uint16), 0, 100), [0, 1])
    wide = np.array([-(2**31), 0, 2**31 - 1], np.int32)
    np.testing.assert_allclose(percentile_scale(wide, 0, 100), [0, 0.5, 1], atol=1e-6)


def test_narrow_range_far_from_zero_keeps_its_contrast():
    voxels = 1e8 + np.arange(5, dtype=np.float64)
    np.testing.assert_allclose(percentile_scale(voxels, 0, 100), [0, 0.25, 0.5, 0.75, 1])


@pytest.mark.parametrize(("low", "high"), [(50, 50), (99, 1), (-1, 99), (0, 101), (np.nan, 99)])
def test_percentiles_out_of_order_are_refused(low, high):
    with pytest.raises(IntensityError, match="in that order"):
        percentile_scale(np.arange(9), low, high)


def test_empty_image_stays_empty():
    assert percentile_scale(np.empty((0, 4, 4))).shape == (0, 4, 4)


def chest(rng):
    """Air, lung, fat, soft tissue and bone in CT numbers."""
    parts = ((-1000, 20, 30_000), (-800, 60, 9_000), (-100, 15, 9_000), (50, 20, 20_000))
    values = [rng.normal(mean, spread, count) for mean, spread, count in parts]
    return np.concatenate([*values, rng.normal(600, 200, 2_000)])


def test_ct_numbers_are_recognised():
    hu = chest(np.random.default_rng(0))
    assert looks_like_hounsfield(hu.astype(np.int16))
    assert looks_like_hounsfield(hu.astype(np.float32))


def test_ct_with_padding_and_metal_is_recognised():
    hu = chest(np.random.default_rng(0)).astype(np.int16)
    padded = np.concatenate([hu, np.full(20_000, -3024, np.int16), np.full(50, 12_000, np.int16)])
    assert looks_like_hounsfield(padded)


@pytest.mark.parametrize(
    "voxels",
    [
        np.random.default_rng(0).gamma(2, 200, 10_000).astype(np.int16),
        np.random.default_rng(0).normal(0, 1, 10_000).astype(np.float32),
        np.random.default_rng(0).integers(-4096, 4096, 10_000).astype(np.int16),
        chest(np.random.default_rng(0)).astype(np.int16).astype(np.uint16),
        np.zeros((4, 4, 4), np.int16),
        np.empty(0, np.int16),
    ],
    ids=["magnitude", "z-score", "phase", "unsigned", "constant", "empty"],
)
def test_other_values_are_not_taken_for_ct(voxels):
    assert not looks_like_hounsfield(voxels)


HEAD = np.hypot(*np.mgrid[-32:32, -32:32]) < 24


def mr_differences():
    """Images with values on both sides of zero, none of them CT numbers, in units of any size."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (12, 64, 64))
    ramp = np.linspace(-1, 1, 64)[:, np.newaxis]
    shapes = {
        "labelled minus control": noise * 0.05 + HEAD * rng.normal(0.7, 1, noise.shape),
        "after minus before": noise * 0.1 + HEAD * rng.normal(0.1, 0.3, noise.shape),
        "field map": noise * 0.02 + HEAD * ramp,
        "phase": np.where(HEAD, ramp, rng.uniform(-1, 1, noise.shape)),
        "heavy tails": rng.laplace(0, 0.5, noise.shape),
        "gradient": np.gradient(HEAD * noise, axis=1),
    }
    return {
        f"{name} x {scale}": values * scale
        for name, values in shapes.items()
        for scale in (300, 1_000, 1_100, 1_500, 4_096)
    }


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_mr_differences_are_not_taken_for_ct(dtype):
    for name, values in mr_differences().items():
        assert not looks_like_hounsfield(values.astype(dtype)), name


@pytest.mark.parametrize(
    "parts",
    [
        {"air": 0.5, "soft": 0.45, "bone": 0.05},
        {"air": 0.01, "fat": 0.3, "soft": 0.6, "bone": 0.09},
        {"padding": 0.2, "air": 0.05, "soft": 0.75},
        {"air": 0.1, "lung": 0.6, "soft": 0.3},
        {"air": 0.1, "sick lung": 0.1, "soft": 0.8},
        {"air": 0.9, "soft": 0.1},
        {"air": 0.3, "soft": 0.65, "metal": 0.005, "fat": 0.045},
    ],
    ids=str,
)
@pytest.mark.parametrize("noise_hu", [0, 10, 40])
def test_ct_of_any_part_of_the_body_is_recognised(parts, noise_hu):
    rng = np.random.default_rng(0)
    numbers = {"padding": -3024, "air": -1000, "lung": -820, "sick lung": -500, "fat": -100}
    numbers |= {"soft": 40, "bone": 600, "metal": 3000}
    hu = np.repeat([numbers[part] for part in parts], [int(20_000 * x) for x in parts.values()])
    noisy = hu + rng.normal(0, 1, hu.shape) * noise_hu
    assert looks_like_hounsfield(np.maximum(noisy, min(hu.min(), -1024)).astype(np.int16))


def test_real_volumes_are_told_apart(kit):
    paths = sorted((kit / "volumes").glob("*.nii.gz"))
    assert paths
    for path in paths:
        voxels = np.asarray(nibabel.load(path).dataobj)
        assert looks_like_hounsfield(voxels) == path.name.startswith("ct_"), path.name


def test_real_mr_fills_the_range_and_keeps_its_background_black(kit):
    path = kit / "volumes" / "mr_brain_t1gd_skullstripped.nii.gz"
    voxels = np.asarray(nibabel.load(path).dataobj)
    scaled = percentile_scale(voxels)
    assert scaled[voxels == voxels.min()].max() == 0
    assert 0.2 < np.median(scaled[voxels > voxels.min()]) < 0.8
