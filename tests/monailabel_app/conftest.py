import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import requests
from monailabel.client import MONAILabelClient
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "slicer_extension" / "RadFound"))  # as Slicer does
# For radfound-tiny, which knows nothing and has nothing to keep, and for a test's own correction:
# the log of the server that tests share holds texts too hard for it.
QUICK_TRAINING = {
    "newest": 1,
    "learning_rate": 0.02,
    "max_steps": 300,
    "least_kept": 0,
    "tolerance_stops": 1.0,
}
TOKEN = "a-token-that-nobody-guesses"
VOLUME, CT, SERIES, PICTURE = "volume", "ct", "series.of.two", "picture"


@dataclass
class Server:
    url: str
    studies: Path
    log: Path
    process: subprocess.Popen
    token: str | None = None

    def _call(self, method, path, headers=None, **kwargs):
        shown = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers = {**shown, **(headers or {})}
        return requests.request(method, self.url + path, timeout=120, headers=headers, **kwargs)

    def post(self, path, **kwargs):
        return self._call("POST", path, **kwargs)

    def put(self, path, **kwargs):
        return self._call("PUT", path, **kwargs)

    def get(self, path, **kwargs):
        return self._call("GET", path, **kwargs)

    def head(self, path, **kwargs):
        return self._call("HEAD", path, **kwargs)

    def delete(self, path, **kwargs):
        return self._call("DELETE", path, **kwargs)

    def ask(self, image, question="What is shown?", model="radfound_vqa", **params):
        params = {"question": question, **params}
        return self.post(
            f"/infer/{model}", params={"image": image}, data={"params": json.dumps(params)}
        )

    def training_status(self, timeout_s=300):
        """Wait for the newest training to end and return its status."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            status = self.get("/train/").json()
            if status["status"] not in ("SUBMITTED", "RUNNING"):
                return status
            time.sleep(0.2)
        raise AssertionError("training did not end")


def fill_with_studies(folder):
    """A volume, a real CT slice, a DICOM folder and a picture."""
    voxels = np.random.default_rng(0).integers(0, 200, (24, 20, 16)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([2.0, 2, 3, 1])), folder / f"{VOLUME}.nii.gz")
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), folder / f"{CT}.dcm")
    write_dicom_series(folder / SERIES)
    Image.fromarray(voxels[:, :, 0].astype(np.uint8)).save(folder / f"{PICTURE}.png")


def write_dicom_series(folder, slices=2):
    folder.mkdir()
    for index in range(slices):
        dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
        dataset.SOPInstanceUID = generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.InstanceNumber = index + 1
        x, y, _ = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, 5.0 * index]
        dataset.SliceLocation = 5.0 * index
        dataset.save_as(folder / f"IM{index}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_server(
    studies,
    log,
    *conf,
    host="127.0.0.1",
    token=None,
    variables=(),
    wrapper=(),
    model="radfound-tiny",
):
    """The stock command of MONAI Label, on a free port of this machine; stopped at the end."""
    port = free_port()
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.update(variables)
    if token:
        environment["RADFOUND_TOKEN"] = token
    environment["PATH"] = f"{bin_folder}{os.pathsep}{environment['PATH']}"
    environment["MONAI_LABEL_SESSION_PATH"] = str(log.parent / "sessions")
    command = [
        *wrapper,
        # not its shell script, which puts the folder above the environment first on the path
        *(sys.executable, "-m", "monailabel.main", "start_server"),
        *("--app", str(ROOT / "monailabel_app")),
        *("--studies", str(studies), "--host", host, "--port", str(port)),
        *(("--conf", "model", model) if model else ()),
        *conf,
    ]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=log.parent
        )
    server = Server(f"http://127.0.0.1:{port}", studies, log, process, token)
    try:
        wait_until_healthy(server)
        yield server
    finally:
        stop(process)


def wait_until_healthy(server, timeout_s=300):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            if server.get("/radfound/health").ok:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError(f"the server did not start:\n{server.log.read_text()[-3000:]}")


def stop(process, timeout_s=30):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    studies = folder / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    with running_server(studies, folder / "server.log") as server:
        yield server


@pytest.fixture(scope="session")
def guarded(tmp_path_factory):
    """A server with a token, a further name, a friendly origin, and uploads of up to 1 MB."""
    folder = tmp_path_factory.mktemp("guarded")
    studies = folder / "studies"
    studies.mkdir()
    fill_with_studies(studies)
    conf = {
        "max_upload_mb": "1",
        "hosts": "ward.example,proxy.example:8443",
        "origins": "https://viewer.example",
    }
    conf = [word for name, value in conf.items() for word in ("--conf", name, value)]
    with running_server(studies, folder / "server.log", *conf, token=TOKEN) as server:
        yield server


@pytest.fixture
def client(server, tmp_path):
    return MONAILabelClient(server.url, tmpdir=str(tmp_path))


@pytest.fixture
def correction():
    """Make a correction of its own id."""
    counter = iter(range(1000))
    stamp = time.monotonic_ns()

    def make(image=VOLUME, **changes):
        return {
            "schema": "radfound.correction/1",
            "id": f"test-{stamp}-{next(counter)}",
            "answer_id": None,
            "images": [image],
            "task": "vqa",
            "question": "Which plane is this?",
            "model_text": "sagittal",
            "verdict": "edited",
            "text": "axial",
            "author": "a reader",
            **changes,
        }

    return make
