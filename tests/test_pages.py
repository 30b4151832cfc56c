"""The blocks of README and docs do what they promise.

Blocks that need no extra are run by `make acceptance`, where users' environment is; those that need one here,
where all extras are.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from radfound.cli import main

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from pages import INSTALLS, ROOT, RUN, SAVED, SHOWN, BlockError, Reader, blocks, pages
from serve import put_samples

ALL = [block for page in pages() for block in blocks(page)]
PROGRAMS = Path(sys.executable).parent
COMMAND = re.compile(r"^(\$ |make |radfound |python |pip |curl |monailabel )", re.MULTILINE)


def of_kind(*kinds):
    return [block for block in ALL if block.kind in kinds]


def test_every_block_is_run_saved_installed_or_shown_for_a_reason():
    counts = {kind: len(of_kind(kind)) for kind in (RUN, SAVED, INSTALLS, SHOWN)}
    print(f"blocks of README and docs: {counts}")
    assert sum(counts.values()) == len(ALL)
    fences = sum(page.read_text().count("\n```") for page in pages())
    assert fences == 2 * len(ALL)
    assert counts[RUN] > counts[SHOWN] - len([b for b in ALL if b.language == "text"])


def test_what_is_only_shown_holds_no_command_to_type():
    assert [
        b.place for b in of_kind(SHOWN) if b.language == "text" and COMMAND.search(b.text)
    ] == []


def test_what_is_saved_is_used():
    used = "".join(block.text for block in of_kind(RUN))
    names = [block.mark.removeprefix("save as ") for block in of_kind(SAVED)]
    assert names and [name for name in names if name not in used] == []


@pytest.mark.parametrize("mark", ["", "with luck", "shown:", "save as"])
def test_a_block_that_nobody_thought_of_is_named(mark, tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"<!-- {mark} -->\n```json\n{{}}\n```\n")
    [block] = blocks(page)
    with pytest.raises(BlockError, match="README.md:2"):
        _ = block.kind


def test_a_comment_far_above_a_block_is_not_its_mark(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("<!-- begin -->\ntext\n<!-- end -->\n\n<!-- shown: why -->\n```sh\nls\n```\n")
    assert [block.mark for block in blocks(page)] == ["shown: why"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Someone beside a checkout with the sample studies, in an environment with every extra."""
    folder = tmp_path_factory.mktemp("reader")
    for path in ROOT.iterdir():
        if path.name not in ("studies", "runs") and not path.name.startswith("."):
            (folder / path.name).symlink_to(path)
    (folder / "studies").mkdir()
    put_samples(folder / "studies")
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    reader = Reader(folder, PROGRAMS, variables)
    for page in pages():
        reader.save(page)
    return reader


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_blocks_that_need_an_extra_run(reader, page):
    extras = {block.extra for block in blocks(page)} - {""}
    for extra in extras - {"server"}:  # MONAI Label starts here without it
        assert list(reader.follow(page, extra))


def inline(program):
    """Return what stands behind a program's name in the text, up to the first option or value."""
    text = "".join(page.read_text(encoding="utf-8") for page in pages())
    found = re.findall(rf"`{program} ((?:[a-z][a-z-]*[ `])+)", text)
    return sorted({words.strip("` ") for words in found})


@pytest.mark.parametrize("target", inline("make"))
def test_make_targets_named_in_the_text_exist(target):
    command = ["make", "--dry-run", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", inline("radfound"))
def test_commands_named_in_the_text_exist(command):
    with pytest.raises(SystemExit, match="^0$"):
        sys.exit(main([*command.split(), "--help"]))


def test_python_modules_and_scripts_named_in_the_text_exist():
    text = "".join(page.read_text(encoding="utf-8") for page in pages())
    for name in re.findall(r"python -m ((?:radfound|training|monailabel_app)[a-z_.]*)", text):
        assert (ROOT / name.replace(".", "/")).with_suffix(".py").is_file() or (
            ROOT / name.replace(".", "/") / "__main__.py"
        ).is_file(), name


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
