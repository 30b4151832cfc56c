"""The walk-through of docs/reader-study.md does what it says."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from radfound.cli import main
from radfound.reader_study.design.config import read_config
from radfound.reader_study.design.plan import Plan, Reader
from radfound.reader_study.rating.ratings import PREFERENCE, SCORE, Rating, RatingStore
from radfound.viewer import PAGE as VIEWER
from scripts.serve import put_samples

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reader-study.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def command(name: str) -> list[str]:
    """The arguments of one of the page's commands."""
    (line,) = [
        each for each in "".join(blocks("sh")).splitlines() if f"reader-study {name}" in each
    ]
    return shlex.split(line)[1:]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with the samples and the page's study.yaml in `studies`."""
    studies = tmp_path / "studies"
    studies.mkdir()
    put_samples(studies)
    (studies / "study.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rate_everything(plan: Plan, reader: Reader) -> None:
    """Prefer the longer text, in every way."""
    store = RatingStore(plan)
    for item in reader.items:
        longest = max(item.candidates, key=lambda each: len(each.text))
        said = [
            (SCORE, each.id, criterion.key, "5" if each is longest else "3")
            for each in item.candidates
            for criterion in plan.criteria
        ]
        first = "first" if item.candidates[0] is longest else "second"
        said += [(PREFERENCE, one, other, first) for one, other in item.pairs]
        for kind, candidate, name, value in said:
            store.record(
                Rating(
                    reader=reader.id, kind=kind, value=value,
                    item=item.id, candidate=candidate, name=name,
                )
            )  # fmt: skip


def test_the_pages_commands_lead_from_the_yaml_to_the_analysis(place, capsys):
    assert main(command("create")) == 0
    assert capsys.readouterr().out.count("http://127.0.0.1:8020/#") == 3
    plan = Plan.load(place / "brain-study")
    for reader in plan.readers:
        assert len(reader.items) == 3  # two cases, and one of them again
        rate_everything(plan, reader)
    assert main(command("analyse")) == 0
    for file in ("report.md", "results.json", "ratings.csv"):
        assert (place / "brain-study" / "analysis" / file).is_file()
    assert main(command("export-corrections")) == 0
    assert "0 of 3 readers agreed" in capsys.readouterr().out


def test_the_pages_other_criteria_are_accepted(place):
    path = place / "studies" / "study.yaml"
    study = yaml.safe_load(path.read_text(encoding="utf-8")) | yaml.safe_load(blocks("yaml")[2])
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    assert [each.key for each in read_config(path).criteria] == ["correctness", "urgency"]


def test_the_pages_pictures_are_there():
    pictures = re.findall(r"\]\((images/[^)]+)\)", PAGE)
    assert len(pictures) == 6
    for picture in pictures:
        assert (ROOT / "docs" / picture).stat().st_size < 160_000


def test_the_page_names_the_keys_that_the_browser_knows():
    pages = (ROOT / "radfound" / "reader_study" / "rating" / "page", VIEWER)
    source = "".join(
        path.read_text(encoding="utf-8")
        for folder in pages
        for path in sorted(folder.iterdir())
        if path.name in ("screens.js", "viewer.js", "form.js", "app.js")
    )
    for key in "jkcnbwsxivfo":
        assert f"`{key.upper()}`" in PAGE
        assert re.search(rf'\b{key}: \(\)|\b{key}: -?1|"{key}"', source), key
