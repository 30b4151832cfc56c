import ast
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("radfound", "training", "monailabel_app", "slicer_extension")
MAY_NOT_IMPORT = {
    "radfound": {"training", "monailabel_app", "slicer_extension", "monailabel"},
    "training": {"monailabel_app", "slicer_extension", "monailabel"},
    "monailabel_app": {"slicer_extension"},
    "slicer_extension": {"torch", "radfound", "training", "monailabel_app", "monailabel"},
}
# peft's own, which have no code to run
NOT_OF_TRANSFORMERS = {"LoraConfig", "PeftConfig", "PeftModel"}
# what a client without a model needs, and what reads tables of data
TORCH_FREE = (
    "cli",
    "wire",
    "correction",
    "question",
    "engine.recipes",
    "engine.models.check",
    "engine.models.cli",
    "engine.models.registry",
    "engine.openai.backend",
    "engine.hidden",
    "records.corrections",
    "records.adapters",
    "study.study",
    "study.region",
    "study.slices",
    "exceptions",
    "datasets",
    "reader_study.rating.server",
    "same_origin",
    "spreadsheet",
)


def imported_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Go through the absolute names that a module imports, wherever and however it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module
        elif isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0]
            if name in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield node.lineno, str(first.value)


def forbidden_imports(source: str, part: str) -> list[tuple[int, str]]:
    return [
        (line, name)
        for line, name in imported_names(ast.parse(source))
        if name.split(".")[0] in MAY_NOT_IMPORT[part]
    ]


@pytest.mark.parametrize("part", PARTS)
def test_arrows_run_one_way(part):
    files = sorted((ROOT / part).rglob("*.py"))
    if not files:
        pytest.skip(f"{part} holds no Python yet")
    found = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in files
        for line, name in forbidden_imports(file.read_text(encoding="utf-8"), part)
    ]
    assert found == []


@pytest.mark.parametrize(
    "statement",
    [
        "import training",
        "import training.loop.optimise as loop",
        "from training.loop.optimise import run",
        "def later():\n    from training import loop",
        "import importlib\nimportlib.import_module('training.loop.optimise')",
        "__import__('training')",
    ],
)
def test_a_wrong_arrow_is_seen_in_whatever_form(statement):
    assert forbidden_imports(statement, "radfound")
    assert not forbidden_imports(statement.replace("training", "training_log"), "radfound")


ARCHITECTURE = runpy.run_path(str(ROOT / "scripts" / "architecture.py"))


def test_no_wing_imports_another_that_imports_it():
    assert ARCHITECTURE["cycles"](ARCHITECTURE["wings"]()) == []


def test_no_modules_import_each_other():
    assert ARCHITECTURE["cycles"](ARCHITECTURE["imports"]()) == []


def test_every_module_that_is_imported_exists():
    """Also for types only: mypy takes a missing module for one without types."""
    known = ARCHITECTURE["modules"]()
    missing = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in known.values()
        for line, name in imported_names(ast.parse(file.read_text(encoding="utf-8")))
        if name.split(".")[0] in ARCHITECTURE["PACKAGES"] and name not in known
    ]
    assert missing == []


def test_no_folder_holds_more_than_a_dozen_modules():
    for folder in {path.parent for path in ARCHITECTURE["modules"]().values()}:
        modules = [each for each in folder.glob("*.py") if not each.name.startswith("__")]
        assert len(modules) <= 12, folder


def test_the_picture_of_the_wings_is_up_to_date():
    text = ARCHITECTURE["PAGE"].read_text(encoding="utf-8")
    assert ARCHITECTURE["page"](text) == text


def test_a_cycle_is_found_whatever_its_length():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}
    assert ARCHITECTURE["cycles"](graph) == [["a", "b", "c"]]


def run_python(script: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_help_imports_nothing_heavy():
    script = """
import sys
from radfound.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
heavy = {"torch", "transformers", "peft", "itk", "nibabel", "monai", "pydicom"} & set(sys.modules)
assert not heavy, heavy
"""
    assert "usage: radfound" in run_python(script)


@pytest.mark.parametrize("module", TORCH_FREE)
def test_module_imports_where_torch_is_absent(module):
    run_python(f"import sys; sys.modules['torch'] = None; import radfound.{module}")


def loads_that_may_run_code(source: str) -> list[int]:
    """Lines that load something of transformers without forbidding the code that may come with it."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    loads = (
        call
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "from_pretrained"
        and ast.unparse(call.func.value) not in NOT_OF_TRANSFORMERS
    )
    return [
        call.lineno
        for call in loads
        if "trust_remote_code=False" not in map(ast.unparse, call.keywords)
    ]


@pytest.mark.parametrize("part", (*PARTS, "scripts"))
def test_no_code_that_comes_with_a_model_is_run(part):
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in sorted((ROOT / part).rglob("*.py"))
        for line in loads_that_may_run_code(file.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_a_load_that_may_run_code_is_seen_in_whatever_form():
    for arguments in ("a", "a, trust_remote_code=True", "a, **{'trust_remote_code': False}"):
        assert loads_that_may_run_code(f"x = m.AutoModel.from_pretrained({arguments})")
    assert not loads_that_may_run_code("AutoModel.from_pretrained(a, trust_remote_code=False)")
    assert not loads_that_may_run_code("PeftModel.from_pretrained(a, b)")
