"""The written rules, without an archive: which series, which settings, what is kept on the disk."""

import os

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from monailabel_app.lib.pacs.archive import SeriesRow, StudyRow, is_uid
from monailabel_app.lib.pacs.cache import SeriesCache
from monailabel_app.lib.pacs.records import Outgoing, PacsRecords
from monailabel_app.lib.pacs.selection import choose, may_hold_images
from monailabel_app.lib.pacs.settings import PacsSettings, parse_query
from radfound.exceptions import (
    PacsUnreachableError,
    RequestError,
    StudyUnreadableError,
)

IMAGE = "1.2.840.10008.5.1.4.1.1.2"
MAP = "1.2.840.10008.5.1.4.1.1.30"
AXIAL = ("ORIGINAL", "PRIMARY", "AXIAL")


def series(number, modality="CT", instances=10, sop_class=IMAGE, image_type=AXIAL):
    row = SeriesRow("1.2", f"1.2.{number}", modality, number, instances)
    return row, (sop_class, image_type)


def chosen(*rows, most=2, named=None):
    kinds = {row.uid: kind for row, kind in rows}
    found = choose([row for row, _ in rows], lambda row: kinds[row.uid], most, named)
    return [row.number for row in found.series]


def test_the_largest_original_series_of_a_ct_are_shown_by_number():
    derived = ("DERIVED", "SECONDARY")
    rows = [
        series(5, instances=90),
        series(1, instances=2, image_type=(*AXIAL[:2], "LOCALIZER")),
        series(3, instances=300),
        series(4, instances=500, image_type=derived),
        series(2, instances=40),
        series(9, "SR"),
    ]
    assert chosen(*rows) == [3, 5]
    assert chosen(*rows, most=4) == [2, 3, 4, 5]
    assert chosen(*rows, named="4") == [4]
    assert chosen(*rows, named="1.2.9") == [9]


def test_all_views_of_a_mammogram_are_shown():
    views = [series(number, "MG", 1) for number in range(1, 6)]
    assert chosen(*views, series(7, "SR"), series(8, "OT", sop_class=MAP)) == [1, 2, 3, 4, 5]


def test_a_study_is_named_by_what_is_known_of_it():
    row = StudyRow("1.2", ("CT", "SR"), (2, 30), "2026-01-05", "CT chest")
    assert row.title == "CT/SR · CT chest · 2026-01-05"
    assert StudyRow("1.2", (), (0, 0), "2026-01-05").title == "2026-01-05"
    assert StudyRow("1.2", (), (0, 0)).title == "1.2"


def test_a_map_of_this_project_is_no_series_of_the_study():
    assert chosen(series(1), series(9003, "OT", 100, MAP, ("DERIVED", "PRIMARY"))) == [1]


def test_a_study_without_images_is_unreadable():
    with pytest.raises(StudyUnreadableError, match="none of them with images"):
        chosen(series(1, "SR"), series(2, "CT", image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")))
    assert not may_hold_images(["SR", "ECG"])
    assert may_hold_images(["SR", "CT"]) and may_hold_images([])


def test_a_series_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(RequestError, match=r"no series '7'.*1 \(CT\), 2 \(CT\)"):
        chosen(series(1), series(2), named="7")


@pytest.mark.parametrize(
    "conf",
    [
        {"pacs_write": "yes"},
        {"pacs_query": "patient=1"},
        {"pacs_query": "nonsense"},
        {"pacs_series": "0"},
        {"pacs_cache_mb": "-1"},
        {"pacs_timeout_s": "soon"},
        {"pacs_token_file": "/no/such/file"},
        {"pacs_watch": "always"},
        {"pacs_language": "elvish"},
    ],
)
def test_a_wrong_setting_is_named(conf):
    with pytest.raises(RequestError, match=next(iter(conf))):
        PacsSettings.of("http://127.0.0.1:1/dicom-web", conf, {})


def test_settings_are_read_and_the_password_is_not_shown():
    conf = {"pacs_query": "ModalitiesInStudy=CT&StudyDescription=*chest*", "pacs_watch": "30"}
    variables = {"MONAI_LABEL_DICOMWEB_USERNAME": "a", "MONAI_LABEL_DICOMWEB_PASSWORD": "hush"}
    found = PacsSettings.of("http://127.0.0.1:1/dicom-web/", conf, variables)
    assert found.query == {"ModalitiesInStudy": "CT", "StudyDescription": "*chest*"}
    assert found.watch_s == 30 and found.write == "no"
    assert found.url.endswith("dicom-web") and "hush" not in repr(found)
    assert parse_query("pacs_query", "") == {}


def test_a_path_is_no_uid():
    assert is_uid("1.2.840.10008") and not is_uid("1.2/../3")
    assert not is_uid("1.2.") and not is_uid("1." + "2" * 70) and not is_uid("1.02")


def instances(number, broken_after=None):
    for index in range(number):
        if index == broken_after:
            raise PacsUnreachableError("the connection broke")
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.is_little_endian, header.is_implicit_VR = True, False
        header.SOPInstanceUID = generate_uid()
        header.PixelData = bytes(1000)
        header["PixelData"].VR = "OW"
        yield header


def test_a_series_is_fetched_once_and_again_when_it_has_grown(tmp_path):
    fetched = []

    def fetch(study, uid):
        fetched.append(uid)
        return instances(len(fetched) + 1)

    cache = SeriesCache(tmp_path / "cache", 1 << 20, fetch)
    first = cache.get(SeriesRow("1.2", "1.2.3", "CT", 1, 2))
    assert cache.get(SeriesRow("1.2", "1.2.3", "CT", 1, 2)) == first
    assert fetched == ["1.2.3"] and len(list(first.glob("*.dcm"))) == 2
    cache.get(SeriesRow("1.2", "1.2.3", "CT", 1, 3))
    assert len(list(first.glob("*.dcm"))) == 3
    assert cache.find("1.2.3") == first and cache.find("1.2.4") is None
    assert first.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("listed", [5, None])
def test_a_broken_fetch_leaves_nothing(tmp_path, listed):
    cache = SeriesCache(tmp_path / "cache", 1 << 20, lambda *_: instances(5, broken_after=3))
    with pytest.raises(PacsUnreachableError):
        cache.get(SeriesRow("1.2", "1.2.3", "CT", 1, listed))
    assert list((tmp_path / "cache").rglob("*.dcm")) == []


def test_a_series_with_fewer_instances_than_listed_is_not_kept(tmp_path):
    cache = SeriesCache(tmp_path / "cache", 1 << 20, lambda *_: instances(3))
    with pytest.raises(PacsUnreachableError, match="3 of 4"):
        cache.get(SeriesRow("1.2", "1.2.3", "CT", 1, 4))


def test_the_series_used_the_longest_time_ago_makes_room(tmp_path):
    cache = SeriesCache(tmp_path / "cache", 5000, lambda *_: instances(2))
    paths = []
    for number in range(3):
        paths.append(cache.get(SeriesRow("1.2", f"1.2.{number}", "CT", 1, 2)))
        os.utime(paths[-1], (1000 + number, 1000 + number))
    cache.get(SeriesRow("1.2", "1.2.0", "CT", 1, 2))  # used now
    cache.get(SeriesRow("1.2", "1.2.9", "CT", 1, 2))
    assert paths[0].exists() and not paths[1].exists()


def test_the_outbox_keeps_a_document_once_and_its_content_until_it_is_delivered(tmp_path):
    records = PacsRecords(tmp_path / "outbox.sqlite")
    document = Outgoing("2.25.1", "an-answer", "draft", "1.2", "1.2.3", "1.2.4", "2026-11-29")
    assert records.add_document(document, b"first").state == "waiting"
    records.add_document(document, b"second")
    assert records.content("2.25.1") == b"first" and len(records.waiting()) == 1
    records.settle("2.25.1", "waiting", "the archive is down")
    assert records.content("2.25.1") == b"first"
    records.settle("2.25.1", "delivered")
    assert records.content("2.25.1") == b"" and records.waiting() == []
    assert records.add_document(document, b"third").state == "delivered"


def test_a_set_of_images_is_drafted_once(tmp_path):
    records = PacsRecords(tmp_path / "outbox.sqlite")
    assert records.add_draft("1.2", "key", None, "unreadable")
    assert not records.add_draft("1.2", "key", None, "unreadable")
    assert records.is_settled("1.2", "key") and not records.is_settled("1.2", "another")
    records.note_watched("1.2", "1 2", "another")
    assert records.is_settled("1.2", "another") and records.sizes() == {"1.2": "1 2"}
    (draft,) = records.drafts()
    assert draft.problem == "unreadable" and draft.answer is None
