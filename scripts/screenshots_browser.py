"""Take screenshots of the browser panel and of OHIF for docs/pacs.md; see `make screenshots`.

Servers, model, archive (Orthanc, from `make test-pacs`) and browser are real. The CT and the radiograph come from the
data kit; without the kit, a synthetic CT and nilearn's brain replace them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pydicom  # noqa: E402
from PIL import Image  # noqa: E402

from scripts.serve import BRAIN, put_samples  # noqa: E402
from tests.monailabel_app.conftest import running_server  # noqa: E402
from tests.monailabel_app.pacs import synthetic  # noqa: E402
from tests.monailabel_app.pacs.conftest import serving  # noqa: E402
from tests.monailabel_app.pacs.orthanc import Orthanc, missing_tools  # noqa: E402
from tests.radfound.reader_study.reading_room import running_browser  # noqa: E402

_MODEL = "radfound-mini"
_SIZE = {"width": 1400, "height": 860}
_PATIENCE_MS = 300_000
_COLOURS = 128
_REPORT = """Findings: CT of the upper abdomen with contrast, 20 slices: liver, spleen, stomach.

Impression: An excerpt; not a complete examination."""
# CC BY 3.0, COVID-19 Image Repository, Hannover Medical School
_CHEST = "captions/images/hannover_fff13f3a.jpg"
# Apache-2.0, TotalSegmentator
_CT = "volumes/ct_abdomen_dicom.zip"


def main() -> int:
    """Write docs/images/browser-panel.png and ohif-panel.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("RADFOUND_DATA") or ROOT.parent / "shared" / "data"),
        help="the data kit",
    )
    args = parser.parse_args()
    if missing := missing_tools():
        print(f"screenshots: not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, running_browser() as browser:
        page = browser.new_page(viewport=_SIZE)
        page.set_default_timeout(_PATIENCE_MS)
        _take_panel(page, Path(name) / "panel", args.data, args.out)
        _take_ohif(page, Path(name) / "ohif", args.data, args.out)
    return 0


def _take_panel(page: Any, folder: Path, kit: Path, out: Path) -> None:
    """Ask about a study of a folder."""
    studies = folder / "studies"
    studies.mkdir(parents=True)
    put_samples(studies)
    image = BRAIN
    if (kit / _CHEST).is_file():
        image = "chest_radiograph"
        shutil.copy(kit / _CHEST, studies / f"{image}.jpg")
    with running_server(studies, folder / "server.log", model=_MODEL) as server:
        page.goto(f"{server.url}/radfound/panel?image={image}")
        page.locator(".viewport[data-shown]:not([data-shown=''])").first.wait_for()
        _ask_and_correct(page)
        with page.expect_response("**/radfound/evidence/0/**"):
            page.get_by_role("button", name="Evidence").last.click()
        _keep(page, out / "browser-panel.png")


def _take_ohif(page: Any, folder: Path, kit: Path, out: Path) -> None:
    """Ask about a CT of an archive, and send the report to it."""
    files = folder / "files"
    files.mkdir(parents=True)
    if (kit / _CT).is_file():
        with zipfile.ZipFile(kit / _CT) as archived:
            archived.extractall(files)
    else:
        synthetic.write_ct_series(files, "ct", "standard", 30, size=256)
    paths = sorted(path for path in files.rglob("*") if path.is_file())
    study = pydicom.dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID
    with Orthanc(folder / "orthanc") as archive:
        for path in paths:
            archive.add(path.read_bytes())
        conf = ("pacs_write", "reader")
        with serving(archive, folder / "server", conf, model=_MODEL) as server:
            page.goto(f"{server.url}/ohif/viewer?StudyInstanceUIDs={study}")
            page.get_by_text("Confirm and Hide").click()
            panel = page.frame_locator("iframe[title=RadFound]")
            panel.get_by_label("Question", exact=True).wait_for()
            _ask_and_correct(panel)
            panel.get_by_role("button", name="Edit").click()
            panel.get_by_label("Your text").fill(_REPORT)
            panel.get_by_role("button", name="Save").click()
            panel.get_by_role("button", name="Send to archive").click()
            panel.get_by_role("button", name="In the archive").wait_for()
            _keep(page, out / "ohif-panel.png")


def _ask_and_correct(panel: Any) -> None:
    """Ask one question, accept the answer, and ask for a report."""
    panel.get_by_label("Your name").fill("Ann Reader")
    panel.get_by_label("Question", exact=True).fill("Which imaging modality is this?")
    panel.get_by_role("button", name="Ask", exact=True).click()
    panel.get_by_role("button", name="Accept").click()
    panel.get_by_text("Accepted", exact=True).wait_for()
    panel.get_by_role("button", name="Report").click()
    panel.get_by_role("button", name="Accept").wait_for()


def _keep(page: Any, path: Path) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)
    page.screenshot(path=path)
    with Image.open(path) as drawn:
        fewer = drawn.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    fewer.save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
