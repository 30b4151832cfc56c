import pytest

from radfound.datasets import open_dataset, read_jsonl
from radfound.exceptions import DatasetError

STUDY = {
    "patient": "p01",
    "images": ["p01/frontal.png", "p01/lateral.png"],
    "id": "s1",
    "split": "train",
    "modality": "X-ray",
    "region": "thorax",
    "caption": "Chest X-ray in two views.",
    "findings": "Small left effusion.",
    "impression": "Effusion.",
    "questions": [
        {"question": ["Is there an effusion?", "Effusion?"], "answer": "Yes", "kind": "closed", "id": "q1"},
        {"question": "Where?", "answer": "On the left."},
    ],
}  # fmt: skip


@pytest.fixture
def own(tmp_path, picture, write):
    """Write rows beside two pictures; returns the file."""
    for name in STUDY["images"]:
        picture(tmp_path / name)

    def rows(*studies):
        return write(tmp_path / "studies.jsonl", list(studies), lines=True)

    return rows


def test_every_field_of_a_study_is_read(own):
    (example,) = open_dataset(own(STUDY))
    first, second, caption, report = example.turns
    assert first.questions == ("Is there an effusion?", "Effusion?")
    assert (first.answer, first.kind, first.id) == ("Yes", "closed", "q1")
    assert (second.questions, second.kind) == (("Where?",), "")
    assert caption.answer == example.text == "Chest X-ray in two views."
    assert report.answer == "Findings: Small left effusion.\nImpression: Effusion."
    assert example.labels == {"modality": "X-ray", "region": "thorax"}
    assert (example.key, example.source, len(example.read().images)) == ("p01", "studies", 2)


def test_images_alone_are_a_study(own):
    (example,) = read_jsonl(
        own({"patient": "p", "images": STUDY["images"][:1], "split": "test"}), "test"
    )
    assert example.turns == () and example.text == ""


def test_studies_without_a_split_are_divided_by_patient(own):
    rows = [{"patient": f"p{n // 2}", "images": STUDY["images"][:1]} for n in range(80)]
    file = own(*rows)
    keys = {
        split: [e.key for e in read_jsonl(file, split)] for split in ("train", "validation", "test")
    }
    assert sum(map(len, keys.values())) == 80
    assert all(keys.values()) and len(set(keys["train"]) | set(keys["test"])) == (
        len(set(keys["train"])) + len(set(keys["test"]))
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"finding": "x"}, "line 1: unknown field 'finding'; did you mean 'findings'?"),
        ({"images": "a.png"}, "line 1: images is 'a.png'; expected a list"),
        ({"images": ["a.png"]}, "line 1: names .*a.png, which is not there"),
        ({"patient": None}, "line 1: no text in 'patient'"),
        ({"split": "dev"}, "line 1: split is 'dev'; expected one of train, validation, test"),
        ({"questions": {"question": "x"}}, "line 1: questions is .*; expected a list"),
        ({"questions": [{"question": "x"}]}, "line 1, question 1: no text in 'answer'"),
        ({"questions": [{"question": "x", "answer": "y", "kind": "yes"}]}, "kind is 'yes'"),
    ],
)
def test_a_wrong_row_is_named_with_what_to_do(own, change, message):
    with pytest.raises(DatasetError, match=message.replace("?", r"\?")):
        list(read_jsonl(own(STUDY | change)))


def test_a_patient_belongs_to_one_split(own):
    with pytest.raises(
        DatasetError, match="line 2: patient 'p01' is in test and, before, in train"
    ):
        list(read_jsonl(own(STUDY, STUDY | {"split": "test"})))
    without = {k: v for k, v in STUDY.items() if k != "split"}
    with pytest.raises(DatasetError, match="line 2: some rows have a split and some none"):
        list(read_jsonl(own(STUDY, without)))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_that_is_not_utf_8_is_named(tmp_path, encoding):
    path = tmp_path / "studies.jsonl"
    path.write_bytes('{"patient": "Jörg"}'.encode(encoding))
    with pytest.raises(DatasetError, match="studies.jsonl: not UTF-8"):
        list(read_jsonl(path))


def test_an_empty_file_and_a_broken_line_are_named(own, write, tmp_path):
    with pytest.raises(DatasetError, match="studies.jsonl: empty"):
        list(read_jsonl(own()))
    with pytest.raises(DatasetError, match="line 2: not JSON"):
        list(read_jsonl(write(tmp_path / "broken.jsonl", '{"patient": "a"}\n{"patient": ')))
