"""A small study of phantoms, a server for it, and a reader with a keyboard in a real browser."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image

from radfound.reader_study.design.create import create

ROOT = Path(__file__).parents[3]
PATIENCE_S = 30.0
PATIENCE_MS = 1000 * PATIENCE_S
# Words that stand nowhere else, so that finding one of them means something.
GOOD, POOR = "quillwright", "zephyrmill"
SOURCES = (GOOD, POOR)


def radiograph(path: Path, seed: int) -> Path:
    """A chest of two dark ovals, in 16 bits."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1:1:160j, -1:1:128j]
    chest = 3000 - 1200 * sum(
        np.exp(-((((columns - side) / 0.3) ** 2 + (rows / 0.6) ** 2) ** 2)) for side in (-0.4, 0.4)
    )
    noisy = chest + random.normal(0, 60, chest.shape)
    Image.fromarray(noisy.astype(np.uint16)).save(path)
    return path


def volume(path: Path, seed: int = 0) -> Path:
    """A head of 40 slices whose only bright spot lies in front, on the patient's left, high up."""
    random = np.random.default_rng(seed)
    i, j, k = np.mgrid[
        -1:1:36j, -1:1:44j, -1:1:40j
    ]  # i to the right, j to the front, k to the head
    head = (i**2 + j**2 + k**2 < 0.9) * 400 + random.integers(0, 20, i.shape)
    spot = (i + 0.5) ** 2 + (j - 0.5) ** 2 + (k - 0.5) ** 2 < 0.02
    head[spot] = 1000
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(head.astype(np.int16), affine), path)
    return path


def write_config(folder: Path, readers: int = 3, repeats: float = 0.2, **more) -> Path:
    """Write a `study.yaml` of ten cases of every kind, with two texts about each."""
    from pydicom.data import get_testdata_file

    files = {}
    for number in range(5):
        files[f"pneumonia-{number}"] = [radiograph(folder / f"pneumonia-{number}.png", number)]
    for number in range(2):
        views = [folder / f"exam-{number}-{view}.png" for view in ("RCC", "LCC", "RMLO", "LMLO")]
        files[f"exam-{number}"] = [radiograph(path, 10 + at) for at, path in enumerate(views)]
    for number in range(2):
        files[f"brain-{number}"] = [volume(folder / f"brain-{number}.nii.gz", number)]
    shutil.copy(get_testdata_file("CT_small.dcm"), folder / "belly.dcm")
    files["belly"] = [folder / "belly.dcm"]
    cases = [
        {
            "id": name,
            "images": [path.name for path in paths],
            "task": "vqa" if name == "belly" else "report",
            "question": "Is there free fluid?" if name == "belly" else None,
            "texts": {GOOD: f"No effusion. ({at})", POOR: f"Large effusion. ({at})"},
        }
        for at, (name, paths) in enumerate(files.items())
    ]
    cases = [{key: value for key, value in case.items() if value} for case in cases]
    config = {
        "title": "Effusions",
        "readers": readers,
        "repeats": repeats,
        "pairwise": True,
        "comment": True,
        "seed": 7,
        "sources": [{"name": name} for name in SOURCES],
        "cases": cases,
        **more,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def make_study(folder: Path, **more):
    """Create that study in `folder / "study"`."""
    source = folder / "source"
    source.mkdir()
    return create(write_config(source, **more), folder / "study")


def token_of(address: str) -> str:
    return address.split("#")[1]


def eventually(read, holds):
    """Read something until it is as it should be; what was read last, if it never is."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds(found := read()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert holds(found), found
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """The server in a process of its own, at one port for all of its lives."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self) -> None:
        command = [sys.executable, "-m", "radfound.cli", "reader-study", "serve"]
        self.process = subprocess.Popen(
            [*command, str(self.folder), "--port", str(self.port)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "the server ended"
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.address, timeout=1).close()
                return
            time.sleep(0.05)
        raise TimeoutError("the server does not answer")

    def stop(self, with_signal: int = signal.SIGTERM) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(with_signal)
            self.process.wait(PATIENCE_S)

    def link(self, created, reader: str) -> str:
        return f"{self.address}/#{token_of(created.addresses[reader])}"


@contextlib.contextmanager
def serving(folder: Path):
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def running_browser(*arguments: str):
    """Debian's chromium, driven by Playwright; the test is skipped where one is missing."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no playwright: make test has it"
    )
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        needed = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(
            executable_path=path, args=[*needed, *arguments], timeout=60_000
        )
        try:
            yield browser
        finally:
            browser.close()


class AtScreen:
    """One reader at one browser window; problems in the page fail the test at `close`."""

    def __init__(self, browser, link: str, size=(1280, 800), **options):
        width, height = size
        viewport = {"width": width, "height": height}
        self.context = browser.new_context(viewport=viewport, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.problems = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._listen)
        self.link = link

    def _listen(self, message) -> None:
        is_expected = "net::ERR" in message.text or "willReadFrequently" in message.text
        if message.type in ("error", "warning") and not is_expected:
            self.problems.append(message.text)

    def open(self) -> None:
        self.page.goto(self.link)
        self.page.wait_for_selector(
            "[data-screen=instructions] h1, .viewer, [data-screen=finished] h1"
        )

    def begin(self) -> None:
        self.page.keyboard.press("End")
        self.page.get_by_role("button", name="Start rating").press("Enter")
        self.wait_for_case(1)

    def wait_for_case(self, number: int) -> None:
        self.page.locator(".place", has_text=f"Case {number} of").wait_for()
        self.page.locator(".viewport:not(.loading)").first.wait_for()

    def place(self) -> tuple[int, int]:
        """Which case is shown, from 1, and how many there are."""
        words = self.page.locator(".place").inner_text().split()
        number, total = (int(word) for word in words if word.isdigit())
        return number, total

    def wait_until_saved(self) -> None:
        self.page.locator(".saving[data-state=saved]").wait_for()

    def rate_case(self, at_most: int | None = None) -> int:
        """Press a key for each row that has no answer yet, by what the texts say; returns how many."""
        texts = self.page.locator(".card .text").all_inner_texts()
        is_good = ["No effusion" in text for text in texts]
        keys = [key for good in is_good for key in ("45454" if good else "12121")]
        keys += ["1" if is_good[0] else "3"]
        keys = keys[self.page.locator(".row.answered").count() :][:at_most]
        for key in keys:
            self.page.keyboard.press(key)
        return len(keys)

    def rate_all(self, at_most_cases: int = 99) -> int:
        """Rate one case after the other, from the shown one on; returns how many ratings were given."""
        given = 0
        for _ in range(at_most_cases):
            number, total = self.place()
            given += self.rate_case()
            self.page.keyboard.press("n")
            if number == total:
                self.page.locator("[data-screen=finished] h1").wait_for()
                break
            self.wait_for_case(number + 1)
        return given

    def close(self) -> None:
        self.context.close()
        assert self.problems == []
