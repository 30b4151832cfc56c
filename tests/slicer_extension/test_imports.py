"""What the extension needs: Slicer's own Python and what Slicer ships, nothing else."""

import ast
import subprocess
import sys

import pytest

from ..test_architecture import MAY_NOT_IMPORT, imported_names
from .pythons import ROOT, VERSIONS, python

FOLDER = ROOT / "slicer_extension" / "RadFound"
SLICERS_OWN = {
    "slicer",
    "vtk",
    "qt",
    "ctk",
    "ScriptedLoadableModule",
    "SampleData",
    "SegmentStatistics",
}
SHIPPED = {"numpy", "requests", "certifi"}

IMPORT_ALL = """
import pkgutil, sys
from unittest.mock import MagicMock
sys.path.insert(0, {folder!r})
for name in {absent!r}:
    sys.modules[name] = None
for name in {replaced!r}:
    sys.modules[name] = MagicMock()
import RadFoundLib
for module in pkgutil.walk_packages(RadFoundLib.__path__, "RadFoundLib."):
    __import__(module.name)
    print(module.name)
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_library_imports_where_the_model_and_the_server_are_absent(version):
    absent = sorted(MAY_NOT_IMPORT["slicer_extension"] | {"transformers", "nibabel", "itk"})
    replaced = sorted(SLICERS_OWN | {"numpy"})
    script = IMPORT_ALL.format(folder=str(FOLDER), absent=absent, replaced=replaced)
    run = subprocess.run(
        [python(version), "-B", "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert {"RadFoundLib.net.client", "RadFoundLib.session.outbox"} <= set(run.stdout.split())


@pytest.mark.parametrize("version", VERSIONS)
def test_every_file_is_in_the_language_of_slicers_python(version):
    files = [str(file) for file in sorted((ROOT / "slicer_extension").rglob("*.py"))]
    script = "import sys; [compile(open(f, 'rb').read(), f, 'exec') for f in sys.argv[1:]]"
    subprocess.run([python(version), "-c", script, *files], check=True)


def test_client_jobs_and_outbox_need_no_slicer():
    script = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
for name in {sorted(SLICERS_OWN | SHIPPED)!r}:
    sys.modules[name] = None
import RadFoundLib.net.client, RadFoundLib.session.jobs, RadFoundLib.session.outbox
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_nothing_is_imported_that_slicer_does_not_ship():
    allowed = set(sys.stdlib_module_names) | SLICERS_OWN | SHIPPED | {"RadFoundLib"}
    found = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in sorted((ROOT / "slicer_extension").rglob("*.py"))
        for line, name in imported_names(ast.parse(file.read_text(encoding="utf-8")))
        if name.split(".")[0] not in allowed
    ]
    assert found == []
