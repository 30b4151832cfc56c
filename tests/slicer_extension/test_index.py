"""What Slicer's Extensions Index asks of an extension, as far as it can be checked here; see docs/slicer-index.md."""

import json
import re
from collections import Counter

from .test_packaging import MODULE, ROOT, cmake

ENTRY = json.loads((ROOT / "slicer_extension" / "RadFound.json").read_text(encoding="utf-8"))
FIELDS = {"$schema", "build_dependencies", "category", "scm_revision", "scm_url", "tier"}
TEXT_FILES = {".py", ".ui", ".svg", ".txt", ".toml", ".json"}
LONGEST_PATH = 100  # of Windows' 260 characters, Slicer's folders need more than half


def described():
    return dict(re.findall(r'set\(EXTENSION_(\w+) "(.+)"\)', cmake(ROOT / "CMakeLists.txt")))


def files():
    return [
        path
        for path in (ROOT / "slicer_extension").rglob("*")
        if path.is_file() and not {"__pycache__", ".ruff_cache"} & set(path.parts)
    ]


def test_the_entry_agrees_with_cmake():
    assert set(ENTRY) == FIELDS and ENTRY["tier"] in (1, 3, 5)
    assert ENTRY["category"] == described()["CATEGORY"]
    assert ENTRY["scm_url"].removesuffix(".git") == described()["HOMEPAGE"]
    assert ENTRY["build_dependencies"] == [] and described()["DEPENDS"] == "NA"


def test_the_description_is_one_or_two_sentences_without_jargon():
    text = described()["DESCRIPTION"]

    assert 1 <= len(re.findall(r"\.(?:\s|$)", text)) <= 2
    assert not re.search(r"LoRA|fine-tun|adapter|logit|token", text, re.IGNORECASE)


def test_the_homepage_has_what_the_index_asks_for():
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert text.startswith("# RadFound")
    assert re.search(r"!\[.+\]\(docs/images/slicer-\S+\.png\)", text)
    assert "open *RadFound*" in text  # the sentence about the one module
    assert "arXiv 2409.16183" in text
    assert "Apache-2.0" in text
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_extension_brings_no_binary():
    pictures = [path for path in files() if path.suffix == ".png"]

    assert {path.parent.name for path in pictures} == {"Icons"}
    for path in files():
        if path not in pictures:
            assert path.suffix in TEXT_FILES, path
            path.read_text(encoding="utf-8")


def test_every_file_can_be_unpacked_on_windows_and_macos():
    paths = [str(path.relative_to(ROOT)) for path in files()]

    assert [path for path in paths if not re.fullmatch(r"[A-Za-z0-9_./-]+", path)] == []
    assert [path for path in paths if len(path) > LONGEST_PATH] == []
    assert [path for path, count in Counter(map(str.lower, paths)).items() if count > 1] == []


def test_logic_and_server_know_nothing_of_widgets():
    """The settings of Slicer are Qt's, and the only Qt there."""
    for folder in ("net", "session"):
        for path in (MODULE / "RadFoundLib" / folder).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            found = set(re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE))
            assert not found & {"qt", "ctk", "slicer", "vtk"} or path.name == "settings.py", path


def test_the_panel_has_no_styling_of_its_own_and_asks_in_a_dialog_once():
    text = "".join(path.read_text(encoding="utf-8") for path in files() if path.suffix != ".png")

    assert "styleSheet" not in text and "setStyleSheet" not in text
    assert "QMessageBox" not in text and text.count("confirmYesNoDisplay(") == 1
