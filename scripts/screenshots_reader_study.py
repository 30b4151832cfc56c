"""Take screenshots of the pages of a reader study for docs/reader-study.md; see `make screenshots`.

Server, page and browser are real. The radiograph and the CT come from the data kit; without the kit, a phantom
and nilearn's brain replace them. The mammograms are always phantoms.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import yaml  # noqa: E402
from PIL import Image  # noqa: E402

from scripts.serve import BRAIN, put_samples  # noqa: E402
from tests.radfound.reader_study.reading_room import (  # noqa: E402
    AtScreen,
    radiograph,
    running_browser,
    serving,
)

DESK, TABLET = (1280, 800), (820, 1180)
# CC BY 3.0, COVID-19 Image Repository, Hannover Medical School
_CHEST = "captions/images/hannover_fff13f3a.jpg"
# Apache-2.0, TotalSegmentator
_CT = "volumes/ct_abdomen_dicom.zip"
_GREYS = 44
_VIEWS = (("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO"))

_TEXTS = {
    "chest": (
        "The lungs are clear. The heart is not enlarged. No pleural effusion, no pneumothorax.",
        "Bilateral patchy opacities in the lower zones, more on the left. Small left effusion.",
        "Normal chest.",
    ),
    "mammograms": (
        "Heterogeneously dense tissue in both breasts. No mass, no suspicious calcification, no distortion. BI-RADS 1.",
        "Dense tissue. A spiculated mass of 14 mm in the upper outer quadrant of the left breast. BI-RADS 5.",
        "Both breasts are shown in two views.",
    ),
    "abdomen": (
        "No. There is no fluid around the liver or the spleen.",
        "Yes, a moderate amount of ascites around the liver.",
        "No.",
    ),
}
_INSTRUCTIONS = """You will see three studies and, beside each, three texts about it. They come from different authors, \
in an order that changes; who wrote what is not shown.

Look at the study first. Then rate every text on its own, on every scale. There are no right ratings; use the whole scale.

Every rating is saved as you give it. You can stop at any time and come back by the same link."""


def main() -> int:
    """Write docs/images/reader-study-*.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("RADFOUND_DATA") or ROOT.parent / "shared" / "data"),
        help="the data kit",
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    from radfound.reader_study.design.create import create

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        created = create(_write_study(folder, args.data), folder / "study")
        with serving(created.plan.folder) as server, running_browser() as browser:
            link = server.link(created, "reader-1")
            _take_all(AtScreen(browser, link, DESK), AtScreen(browser, link, TABLET), args.out)
    return 0


def _write_study(folder: Path, kit: Path) -> Path:
    """Copy or create the images, and write `study.yaml` beside them."""
    if (kit / _CT).is_file():
        chest, volume = Path(_CHEST), Path(_CT)
        for file in (chest, volume):
            shutil.copy(kit / file, folder / file.name)
    else:
        put_samples(folder)
        chest, volume = radiograph(folder / "chest.png", 0), Path(f"{BRAIN}.nii.gz")
    views = [_write_mammogram(folder, *view).name for view in _VIEWS]
    question = "Is there free fluid in the upper abdomen?"
    cases = [
        {"id": "chest", "images": [chest.name], "task": "report", "context": "Cough for a week."},
        {"id": "mammograms", "images": views, "task": "report", "context": "Screening, age 52."},
        {"id": "abdomen", "images": [volume.name], "task": "vqa", "question": question},
    ]
    sources = ("one", "other", "third")
    for case in cases:
        case["texts"] = dict(zip(sources, _TEXTS[case["id"]], strict=True))
    study = {
        "title": "Reports and answers: which would you sign?",
        "instructions": _INSTRUCTIONS,
        "readers": 1,
        "pairwise": True,
        "comment": True,
        "seed": 3,
        "sources": [{"name": name} for name in sources],
        "cases": cases,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


def _write_mammogram(folder: Path, side: str, view: str) -> Path:
    """Write a phantom: half an ellipse of noise with a power-law spectrum of exponent 3, as in breast tissue."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import (
        DigitalMammographyXRayImageStorageForPresentation,
        ExplicitVRLittleEndian,
    )

    pixels = _breast(view, seed=_VIEWS.index((side, view)))
    if side == "R":
        pixels = pixels[:, ::-1]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    path = folder / f"{side}{view}.dcm"
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.StudyInstanceUID = dataset.SeriesInstanceUID = "2.25.1"
    dataset.PatientID = "phantom"
    dataset.Modality, dataset.ViewPosition, dataset.ImageLaterality = "MG", view, side
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
    dataset.save_as(path, write_like_original=False)
    return path


def _breast(view: str, seed: int) -> np.ndarray:
    """Return a left breast, shape (960, 720), 12 bits, with the chest wall at the left edge."""
    rows, columns = np.mgrid[-1:1:960j, 0:1.5:720j]
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(960), np.fft.rfftfreq(720), indexing="ij"))
    frequency[0, 0] = 1
    noise = np.fft.irfft2(np.fft.rfft2(random.normal(size=rows.shape)) / frequency**1.5)
    tissue = np.tanh((noise - noise.mean()) / noise.std())
    middle = 0.25 if view == "MLO" else 0.0
    height = np.where(rows < middle, 1.5, 0.68) if view == "MLO" else 0.85
    edge = 1 - ((rows - middle) / height) ** 2 - (columns / 1.1) ** 2
    thickness = np.clip(edge * 5, 0, 1) ** 0.5
    gland = np.exp(-(((rows - middle) / 0.5) ** 2 + ((columns - 0.5) / 0.45) ** 2))
    shade = thickness * (0.2 + 0.38 * gland * (0.7 + 0.6 * tissue) + 0.05 * tissue)
    if view == "MLO":  # pectoral muscle
        muscle = np.clip((-0.1 - rows - 1.5 * columns) * 8, 0, 1)
        shade = np.maximum(shade, muscle * (0.5 + 0.04 * tissue))
    return (np.clip(shade, 0, 1) * 4095).astype(np.uint16)


def _take_all(desk: AtScreen, tablet: AtScreen, out: Path) -> None:
    """Go through the study and save a screenshot of each page."""
    page = desk.page
    desk.open()
    _keep(page, out / "reader-study-instructions.png")
    desk.begin()
    taken = set()
    for number in range(1, 4):
        desk.wait_for_case(number)
        kind = _kind(page)
        for key in "4534":
            page.keyboard.press(key)
        count = page.locator(".viewport").count()
        page.locator(".viewport:not(.loading)").nth(count - 1).wait_for()
        desk.wait_until_saved()
        _keep(page, out / f"reader-study-rating-{kind}.png")
        taken.add(kind)
        if kind == "3d":
            tablet.open()
            tablet.wait_for_case(number)
            _keep(tablet.page, out / "reader-study-tablet.png")
        for key in "4" * 11 + "123":
            page.keyboard.press(key)
        desk.wait_until_saved()
        page.keyboard.press("n")
    page.locator("[data-screen=finished] h1").wait_for()
    desk.wait_until_saved()
    _keep(page, out / "reader-study-finished.png")
    if taken != {"2d", "views", "3d"}:
        raise SystemExit(f"screenshots: found only {sorted(taken)}")


def _kind(page) -> str:
    if page.locator(".viewport").count() > 1:
        return "views"
    return "3d" if page.locator(".leafing").first.is_visible() else "2d"


def _keep(page, path: Path) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    with Image.open(path) as drawn:
        fewer = drawn.convert("RGB").quantize(palette=_palette(), dither=Image.Dither.NONE)
    fewer.save(path, optimize=True)


def _palette() -> Image.Image:
    """Return the page's colours and some greys, few enough to keep a screenshot below about 150 kB."""
    style = (ROOT / "radfound" / "viewer" / "page" / "page.css").read_text(encoding="utf-8")
    colours = [bytes.fromhex(each) for each in re.findall(r"#([0-9a-f]{6})\b", style)]
    colours += [bytes([round(255 * at / (_GREYS - 1))] * 3) for at in range(_GREYS)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(b"".join(colours))
    return palette


if __name__ == "__main__":
    sys.exit(main())
