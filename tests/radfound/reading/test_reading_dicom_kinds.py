"""Images of several kinds at the same places: told apart by what differs, never by their rank."""

from itertools import product

import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from radfound.exceptions import GeometryError, StudyAmbiguousError
from radfound.reading import read_study

from ..miniature import dicom_dataset, items, refusal, voxels_of, write_dicom, write_enhanced

PLACES = 5


def uneven_order(place: int, kinds: int) -> list[int]:
    """The order in which a scanner numbers the kinds of one place; another one at the next."""
    return [(kind + place) % kinds for kind in range(kinds)]


def write_kinds(folder, *kinds, modality="MR", private=None, places=PLACES):
    """Write a file a kind and place, grey value 100 * kind + place; instance numbers interleave."""
    number = 0
    for place in range(places):
        for kind in uneven_order(place, len(kinds)):
            number += 1
            tags = {
                key: value(place) if callable(value) else value
                for key, value in kinds[kind].items()
            }
            dataset = dicom_dataset(
                np.full((2, 3), 100 * kind + place, np.uint16),
                Modality=modality,
                InstanceNumber=number,
                ImagePositionPatient=[0, 0, 4 * place],
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
                PixelSpacing=[1, 1],
                **tags,
            )
            if private:
                private(dataset, kind)
            pydicom.dcmwrite(folder / f"{number:03}.dcm", dataset, write_like_original=False)
    return folder


def told_apart(path, count: int) -> list[str]:
    """Check that each volume is of one kind, in the order of the places; return their names."""
    with pytest.raises(StudyAmbiguousError, match=f"holds {count} volumes") as info:
        read_study(path)
    for volume in range(count):
        voxels = voxels_of(path, volume=volume)
        np.testing.assert_array_equal(voxels[:, 0, 0], 100 * volume + np.arange(len(voxels)))
    return list(info.value.words)


CLASSIC = {
    "component": (
        [{"ImageType": ["ORIGINAL", "PRIMARY", letter, "ND"]} for letter in "MPRI"],
        ["magnitude", "phase", "real part", "imaginary part"],
    ),
    "component of Philips": (
        [
            {"ImageType": ["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"]},
            {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]},
        ],
        ["magnitude", "phase"],
    ),
    "component element": (
        [{"ComplexImageComponent": name} for name in ("MAGNITUDE", "PHASE")],
        ["magnitude", "phase"],
    ),
    "Dixon": (
        [
            {"ImageType": ["DERIVED", "PRIMARY", "DIXON", name]}
            for name in ("WATER", "FAT", "IN_PHASE", "OPP_PHASE")
        ],
        ["water", "fat", "in phase", "opposed phase"],
    ),
    "echo": (
        [{"EchoNumbers": n, "EchoTime": te} for n, te in ((1, 5.0), (2, 90.5))],
        ["echo 1, TE 5 ms", "echo 2, TE 90.5 ms"],
    ),
    "echo time alone": ([{"EchoTime": 2.3}, {"EchoTime": 4.6}], ["TE 2.3 ms", "TE 4.6 ms"]),
    "b-value": (
        [{"DiffusionBValue": b} for b in (0.0, 50.0, 1000.0)],
        ["b = 0", "b = 50", "b = 1000"],
    ),
    "b-value that the first lacks": (
        [{}, {"DiffusionBValue": 1000.0}],
        ["no b-value", "b = 1000"],
    ),
    "gradient": (
        [
            {"DiffusionBValue": 800.0, "DiffusionGradientOrientation": axis}
            for axis in ([0.0, 0.0, 1.0], [1.0, 0.0, 0.0])
        ],
        ["gradient (0, 0, 1)", "gradient (1, 0, 0)"],
    ),
    "trigger time": ([{"TriggerTime": t} for t in (0, 400)], ["trigger time 0 ms", "trigger"]),
    "trigger time of each slice its own": (
        [{"TriggerTime": lambda p: 3 * p}, {"TriggerTime": lambda p: 400 - p}],
        ["phase 1 of 2 by trigger time", "phase 2 of 2 by trigger time"],
    ),
    "temporal position": (
        [{"TemporalPositionIdentifier": t} for t in (9, 10)],
        ["time 9", "time 10"],
    ),
    "inversion time": ([{"InversionTime": t} for t in (200, 2500)], ["TI 200 ms", "TI 2500 ms"]),
    "flip angle": ([{"FlipAngle": a} for a in (5, 20)], ["flip angle 5", "flip angle 20"]),
    "contrast agent": (
        [{}, {"ContrastBolusAgent": "Gd"}],
        ["no contrast agent", "contrast Gd"],
    ),
    "sequence": (
        [{"SequenceName": s} for s in ("ep_b0", "ep_b700")],
        ["sequence ep_b0", "sequence ep_b700"],
    ),
    "acquisition": ([{"AcquisitionNumber": n} for n in (1, 2)], ["acquisition 1", "acquisition 2"]),
}


@pytest.mark.parametrize(("kinds", "names"), CLASSIC.values(), ids=CLASSIC)
def test_images_of_a_classic_series_are_grouped_by_what_differs(tmp_path, kinds, names):
    found = told_apart(write_kinds(tmp_path, *kinds), len(kinds))
    for shown, name in zip(found, names, strict=True):
        assert shown.startswith(name)


ENERGIES = {
    "kVp": ([{"KVP": 80}, {"KVP": 140}], "80 kVp"),
    "keV": ([{"MonoenergeticEnergyEquivalent": e} for e in (40.0, 70.0)], "40 keV"),
    "kernel": ([{"ConvolutionKernel": k} for k in (["Br36", "3"], ["Br60", "3"])], "kernel Br36 3"),
    "image type": (
        [{"ImageType": ["DERIVED", "PRIMARY", "AXIAL", name]} for name in ("IODINE", "VNC")],
        "DERIVED PRIMARY AXIAL IODINE",
    ),
    "cardiac phase": (
        [{"NominalPercentageOfCardiacPhase": p} for p in (30.0, 70.0)],
        "30 % of the cardiac cycle",
    ),
    "respiratory phase": (
        [{"NominalPercentageOfRespiratoryPhase": p} for p in (0.0, 50.0)],
        "0 % of the breath",
    ),
}


@pytest.mark.parametrize(("kinds", "name"), ENERGIES.values(), ids=ENERGIES)
def test_ct_of_several_energies_kernels_or_phases_is_grouped(tmp_path, kinds, name):
    assert told_apart(write_kinds(tmp_path, *kinds, modality="CT"), 2)[0] == name


def test_frames_of_dynamic_pet_are_grouped_by_their_time(tmp_path):
    kinds = [{"FrameReferenceTime": t} for t in (30000.5, 90000.5)]
    assert told_apart(write_kinds(tmp_path, *kinds, modality="PT"), 2)[0] == "30000.5 ms"


def siemens_b(dataset, kind):
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", (0, 1000)[kind])


def ge_b(dataset, kind):
    block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x39, "IS", [1_000_000_000 + (0, 1000)[kind], 8, 0, 0])


def philips_b(dataset, kind):
    block = dataset.private_block(0x2001, "Philips Imaging DD 001", create=True)
    block.add_new(0x03, "FL", (0.0, 1000.0)[kind])


def united_imaging_b(dataset, kind):
    block = dataset.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x09, "FD", (0.0, 1000.0)[kind])


@pytest.mark.parametrize("private", [siemens_b, ge_b, philips_b, united_imaging_b])
def test_b_values_are_found_in_the_private_elements_of_each_vendor(tmp_path, private):
    assert told_apart(write_kinds(tmp_path, {}, {}, private=private), 2) == ["b = 0", "b = 1000"]


def test_component_is_found_in_ges_private_element(tmp_path):
    def private(dataset, kind):
        block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
        block.add_new(0x2F, "SS", kind)

    found = told_apart(write_kinds(tmp_path, {}, {}, private=private), 2)
    assert found == ["magnitude", "phase"]


def test_kinds_of_two_sorts_are_named_by_both(tmp_path):
    kinds = [
        {"ImageType": ["ORIGINAL", "PRIMARY", letter], "EchoTime": te}
        for letter, te in product("MP", (2.5, 5.0))
    ]
    assert told_apart(write_kinds(tmp_path, *kinds), 4) == [
        "magnitude, TE 2.5 ms",
        "magnitude, TE 5 ms",
        "phase, TE 2.5 ms",
        "phase, TE 5 ms",
    ]


def test_kinds_at_places_of_their_own_are_not_mixed_either(tmp_path):
    """Half of the slices are magnitude, the other half, further up, phase."""
    for place in range(8):
        write_dicom(
            tmp_path / f"{place}.dcm",
            np.full((2, 2), 100 * (place // 4) + place % 4, np.uint16),
            Modality="MR",
            ImageType=["ORIGINAL", "PRIMARY", "MP"[place // 4]],
            ImagePositionPatient=[0, 0, place],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
        )
    assert told_apart(tmp_path, 2) == ["magnitude", "phase"]


@pytest.mark.parametrize("trait", ["DiffusionBValue", "TemporalPositionIdentifier"])
def test_a_volume_with_missing_slices_does_not_block_the_other(tmp_path, trait):
    write_kinds(tmp_path, {trait: 1}, {trait: 2})
    gone = next(p for p in tmp_path.iterdir() if pydicom.dcmread(p).pixel_array[0, 0] == 102)
    gone.unlink()
    np.testing.assert_array_equal(voxels_of(tmp_path, volume=0)[:, 0, 0], range(PLACES))
    assert "slice spacing varies" in refusal(GeometryError, tmp_path, volume=1)


def test_volumes_whose_places_differ_by_a_rounding_are_told_apart(tmp_path):
    for time, place in product(range(2), range(PLACES)):
        write_dicom(
            tmp_path / f"{time}{place}.dcm",
            np.full((2, 2), 100 * time + place, np.uint16),
            Modality="MR",
            TemporalPositionIdentifier=time + 1,
            ImagePositionPatient=[0, 0, 1.5 * place + 0.004 * time],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
        )
    told_apart(tmp_path, 2)


def test_an_element_that_some_slices_lack_does_not_split_a_volume(tmp_path):
    write_kinds(tmp_path, {"KVP": lambda place: 120 if place else None}, modality="CT")
    assert len(voxels_of(tmp_path)) == PLACES


def test_what_varies_from_slice_to_slice_does_not_split_a_volume(tmp_path):
    kind = {
        "TriggerTime": lambda p: 10 * p,
        "RepetitionTime": lambda p: 800 + p,
        "AcquisitionTime": lambda p: f"10110{p}.5",
        "AcquisitionNumber": lambda p: p,
    }
    assert len(voxels_of(write_kinds(tmp_path, kind))) == PLACES


@pytest.mark.parametrize("clock", [{}, {"AcquisitionTime": None}])
def test_sweeps_one_after_the_other_are_counted_in_time(tmp_path, clock):
    """Nothing but instance numbers (and times) tells them apart, and those leave no doubt."""
    for sweep, place in product(range(3), range(PLACES)):
        number = sweep * PLACES + place
        write_dicom(
            tmp_path / f"{97 * number % 101}.dcm",
            np.full((2, 2), 100 * sweep + place, np.uint16),
            Modality="MR",
            InstanceNumber=number,
            ImagePositionPatient=[0, 0, place],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[1, 1],
            **{key: f"1000{number:02}" for key in clock},
        )
    by = "time of acquisition" if clock else "instance number"
    assert told_apart(tmp_path, 3)[1] == f"time 2 of 3 by {by}"


def test_images_that_nothing_tells_apart_are_refused(tmp_path):
    message = refusal(GeometryError, write_kinds(tmp_path, {}, {}))
    assert "2 slices at each position" in message and "no header says which" in message


def test_names_of_volumes_hold_no_name_of_the_patient(tmp_path):
    kinds = [{"SeriesDescription": "Muster first"}, {"SeriesDescription": "second"}]
    with pytest.raises(StudyAmbiguousError) as info:
        read_study(write_kinds(tmp_path, *kinds))
    assert info.value.words == ("no description", "second")


# Enhanced multi-frame


def enhanced(path, kinds, **tags):
    """Write kinds of functional groups at each place, their order another one at each."""
    frames = [(place, kind) for place in range(PLACES) for kind in uneven_order(place, len(kinds))]
    values = np.array([100 * kind + place for place, kind in frames], np.uint16)
    pixels = np.broadcast_to(values[:, None, None], (len(frames), 2, 3)).copy()
    positions = [(0, 0, 3 * place) for place, _ in frames]
    groups = [
        {key: value(place) if callable(value) else value for key, value in kinds[kind].items()}
        for place, kind in frames
    ]
    return write_enhanced(path, pixels, positions, groups, **tags)


ENHANCED = {
    "component": (
        [
            {"MRImageFrameTypeSequence": {"ComplexImageComponent": c}}
            for c in ("MAGNITUDE", "PHASE")
        ],
        "magnitude",
    ),
    "frame type": (
        [
            {"MRImageFrameTypeSequence": {"FrameType": ["ORIGINAL", "PRIMARY", "M", w]}}
            for w in ("WATER", "FAT")
        ],
        "water",
    ),
    "echo": ([{"MREchoSequence": {"EffectiveEchoTime": te}} for te in (2.3, 4.6)], "TE 2.3 ms"),
    "b-value": ([{"MRDiffusionSequence": {"DiffusionBValue": b}} for b in (0.0, 9e2)], "b = 0"),
    "gradient": (
        [
            {
                "MRDiffusionSequence": {
                    "DiffusionBValue": 900.0,
                    "DiffusionGradientDirectionSequence": {"DiffusionGradientOrientation": axis},
                }
            }
            for axis in ([0.0, 0.6, 0.8], [1.0, 0.0, 0.0])
        ],
        "gradient (0, 0.6, 0.8)",
    ),
    "temporal position": (
        [{"FrameContentSequence": {"TemporalPositionIndex": t}} for t in (1, 2)],
        "time 1",
    ),
    "cardiac phase": (
        [
            {"CardiacSynchronizationSequence": {"NominalCardiacTriggerDelayTime": t}}
            for t in (20.0, 420.0)
        ],
        "trigger time 20 ms",
    ),
    "kVp": ([{"CTXRayDetailsSequence": {"KVP": v}} for v in (80.0, 140.0)], "80 kVp"),
    "kernel": (
        [{"CTReconstructionSequence": {"ConvolutionKernel": k}} for k in ("B", "C")],
        "kernel B",
    ),
    "velocity": (
        [
            {"MRVelocityEncodingSequence": {"VelocityEncodingDirection": axis}}
            for axis in ([0.0, 0.0, 1.0], [0.0, 1.0, 0.0])
        ],
        "velocity along (0, 0, 1)",
    ),
    "converted from classic": (
        [{"UnassignedPerFrameConvertedAttributesSequence": {"EchoTime": te}} for te in (2.5, 9.0)],
        "TE 2.5 ms",
    ),
    "time of each frame": (
        [
            {
                "FrameContentSequence": lambda place, kind=kind: {
                    "FrameAcquisitionDateTime": f"202401011011{10 * kind + place:02}.5"
                }
            }
            for kind in range(2)
        ],
        "time 1 of 2 by time of acquisition",
    ),
}


@pytest.mark.parametrize(("kinds", "name"), ENHANCED.values(), ids=ENHANCED)
def test_frames_of_an_enhanced_file_are_grouped_by_what_differs(tmp_path, kinds, name):
    found = told_apart(enhanced(tmp_path / "e.dcm", kinds, ComplexImageComponent="MIXED"), 2)
    assert found[0] == name


@pytest.mark.parametrize("pointer", [Tag("InversionTimes"), Tag(0x0077, 0x1001)])
def test_dimensions_that_are_declared_tell_frames_apart(tmp_path, pointer):
    kinds = [
        {"FrameContentSequence": lambda place, k=k: {"DimensionIndexValues": [1, place + 1, k + 1]}}
        for k in range(2)
    ]
    pointers = [Tag("StackID"), Tag("InStackPositionNumber"), pointer]
    dimensions = Sequence([items(DimensionIndexPointer=tag) for tag in pointers])
    path = enhanced(tmp_path / "e.dcm", kinds, DimensionIndexSequence=dimensions)
    name = "inversion times" if pointer == Tag("InversionTimes") else "dimension 3"
    assert told_apart(path, 2) == [f"{name} 1", f"{name} 2"]


def test_frames_without_places_that_differ_in_kind_are_refused(tmp_path):
    dataset = dicom_dataset(
        np.zeros((2, 4, 4), np.uint16),
        Modality="MR",
        PerFrameFunctionalGroupsSequence=[
            items(MRImageFrameTypeSequence={"ComplexImageComponent": name})
            for name in ("MAGNITUDE", "PHASE")
        ],
    )
    pydicom.dcmwrite(tmp_path / "a.dcm", dataset, write_like_original=False)
    assert "differ in component" in refusal(GeometryError, tmp_path / "a.dcm")


# Stacks


def write_stack(folder, directions, count, first=0, **tags):
    for place in range(count):
        write_dicom(
            folder / f"{first + place}.dcm",
            np.full((2, 3), first + place, np.uint16),
            **{
                "Modality": "MR",
                "ImagePositionPatient": list(3.0 * place * np.cross(*directions)),
                "ImageOrientationPatient": list(map(float, np.ravel(directions))),
                "PixelSpacing": [1, 1],
                **tags,
            },
        )


AXIAL, SAGITTAL = ((1, 0, 0), (0, 1, 0)), ((0, 1, 0), (0, 0, -1))
CORONAL = ((1, 0, 0), (0, 0, -1))


def test_stacks_of_two_directions_are_named_and_asked_for(tmp_path):
    write_stack(tmp_path, AXIAL, 3)
    write_stack(tmp_path, SAGITTAL, 2, first=100)
    with pytest.raises(StudyAmbiguousError) as info:
        read_study(tmp_path)
    assert sorted(info.value.words) == [
        "axial, 3 images of 3 x 2, 1 mm a pixel",
        "sagittal, 2 images of 3 x 2, 1 mm a pixel",
    ]
    index = [words.startswith("sagittal") for words in info.value.words].index(True)
    assert set(voxels_of(tmp_path, volume=index)[:, 0, 0]) == {100, 101}


def test_stacks_of_two_pixel_sizes_are_asked_for(tmp_path):
    write_stack(tmp_path, AXIAL, 3)
    write_stack(tmp_path, AXIAL, 3, first=100, PixelSpacing=[0.5, 0.5])
    with pytest.raises(StudyAmbiguousError, match="0.5 mm a pixel"):
        read_study(tmp_path)


def test_localizers_of_three_planes_are_asked_for(tmp_path):
    for first, directions in enumerate((AXIAL, SAGITTAL, CORONAL)):
        kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        write_stack(tmp_path, directions, 1, first=first, ImageType=kind)
    with pytest.raises(StudyAmbiguousError) as info:
        read_study(tmp_path)
    assert {words.split(",")[0] for words in info.value.words} == {"axial", "sagittal", "coronal"}


def test_stacks_that_an_enhanced_file_names_are_asked_for(tmp_path):
    """Two slabs of parallel slices with a gap in between, as of both breasts."""
    positions = [(0, 0, z) for z in (0, 3, 6, 60, 63, 66)]
    groups = [{"FrameContentSequence": {"StackID": stack}} for stack in "111222"]
    pixels = np.zeros((6, 2, 3), np.uint16) + np.array([0, 1, 2, 100, 101, 102])[:, None, None]
    path = write_enhanced(tmp_path / "e.dcm", pixels.astype(np.uint16), positions, groups)
    assert told_apart(path, 2) == ["stack 1", "stack 2"]
