"""A real archive for tests: Orthanc from Debian, in a folder of its own, on a free port, with a password."""

import json
import secrets
import shutil
import subprocess
import time
from pathlib import Path

import pydicom
import requests
from pydicom.filebase import DicomBytesIO

from ..conftest import free_port

PLUGINS = Path("/usr/share/orthanc/plugins")


class Orthanc:
    """One archive; `folder` is fresh or was used by this archive before."""

    def __init__(self, folder: Path, *, gdcm: bool = True, lua: str = "", stable_s: int = 2):
        self.folder, self.port = folder, free_port()
        self.user, self.password = "radfound", secrets.token_urlsafe()
        self._process: subprocess.Popen | None = None
        self._session = requests.Session()
        self._session.auth = (self.user, self.password)
        self._session.trust_env = False
        folder.mkdir(parents=True, exist_ok=True)
        plugins = ["libOrthancDicomWeb.so", *(["libOrthancGdcm.so"] if gdcm else [])]
        conf = {
            "Name": "radfound-test",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "Plugins": [str(PLUGINS / name) for name in plugins],
            "HttpPort": self.port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {self.user: self.password},
            "DicomServerEnabled": False,
            "StableAge": stable_s,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        if lua:
            (folder / "script.lua").write_text(lua)
            conf["LuaScripts"] = [str(folder / "script.lua")]
        (folder / "orthanc.json").write_text(json.dumps(conf))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"

    @property
    def variables(self) -> dict[str, str]:
        """User and password, as MONAI Label's variables."""
        return {
            "MONAI_LABEL_DICOMWEB_USERNAME": self.user,
            "MONAI_LABEL_DICOMWEB_PASSWORD": self.password,
        }

    def start(self) -> "Orthanc":
        log = open(self.folder / "orthanc.log", "ab")  # noqa: SIM115  held by the process
        self._process = subprocess.Popen(
            ["Orthanc", str(self.folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT
        )
        log.close()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self._session.get(f"{self.url}/system", timeout=5).ok:
                    return self
            except requests.ConnectionError:
                time.sleep(0.05)
        raise AssertionError((self.folder / "orthanc.log").read_text()[-2000:])

    def stop(self, kill: bool = False) -> None:
        """Stop it, and wait for its end: else the next one finds the database locked."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.kill() if kill else self._process.terminate()
        self._process.wait(30)

    def __enter__(self) -> "Orthanc":
        return self.start()

    def __exit__(self, *error) -> None:
        self.stop()

    def get(self, path: str, **kwargs) -> requests.Response:
        found = self._session.get(self.url + path, timeout=60, **kwargs)
        found.raise_for_status()
        return found

    def upload(self, folder: Path) -> None:
        """Store every DICOM file of a folder."""
        for path in sorted(folder.rglob("*.dcm")):
            self.add(path.read_bytes())

    def add(self, content: bytes) -> None:
        self._session.post(f"{self.url}/instances", data=content, timeout=60).raise_for_status()

    def clear(self) -> None:
        for study in self.get("/studies").json():
            self._session.delete(f"{self.url}/studies/{study}", timeout=60)

    def remove_study(self, study_uid: str) -> None:
        found = self._session.post(f"{self.url}/tools/lookup", data=study_uid, timeout=60).json()
        for each in found:
            self._session.delete(f"{self.url}{each['Path']}", timeout=60)

    def reports(self, study_uid: str) -> list[pydicom.Dataset]:
        """Return the structured reports of a study, in no order."""
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid, "Modality": "SR"}}
        found = self._session.post(f"{self.url}/tools/find", json=query, timeout=60).json()
        contents = [self.get(f"/instances/{each}/file").content for each in found]
        return [pydicom.dcmread(DicomBytesIO(content)) for content in contents]

    def damage(self, study_uid: str) -> None:
        """Remove the files of a study from the disk, so that it is listed and cannot be fetched."""
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid}}
        for each in self._session.post(f"{self.url}/tools/find", json=query, timeout=60).json():
            uuid = self.get(f"/instances/{each}/attachments/dicom/info").json()["Uuid"]
            (self.folder / "db" / uuid[:2] / uuid[2:4] / uuid).unlink()


def missing_tools() -> list[str]:
    """Return the names of what `make test-pacs` would install."""
    found = [name for name in ("Orthanc", "dciodvfy", "dsrdump", "java") if not shutil.which(name)]
    files = [PLUGINS / "libOrthancDicomWeb.so", Path("/usr/share/java/pixelmed.jar")]
    return found + [str(path) for path in files if not path.exists()]
