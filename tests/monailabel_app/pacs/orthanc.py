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
            "MaximumStorageCacheSize": 0,  # else `damage` changes nothing
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
                self.get("/system")
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

    def _call(self, method: str, path: str, **kwargs) -> requests.Response:
        # Without a session: Orthanc closes idle connections after a second.
        auth = (self.user, self.password)
        found = requests.request(method, self.url + path, auth=auth, timeout=60, **kwargs)
        found.raise_for_status()
        return found

    def get(self, path: str, **kwargs) -> requests.Response:
        return self._call("GET", path, **kwargs)

    def upload(self, folder: Path) -> None:
        """Store every DICOM file of a folder."""
        for path in sorted(folder.rglob("*.dcm")):
            self.add(path.read_bytes())

    def add(self, content: bytes) -> None:
        self._call("POST", "/instances", data=content)

    def reports(self, study_uid: str) -> list[pydicom.Dataset]:
        """Return the structured reports of a study, in no order."""
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid, "Modality": "SR"}}
        found = self._call("POST", "/tools/find", json=query).json()
        contents = [self.get(f"/instances/{each}/file").content for each in found]
        return [pydicom.dcmread(DicomBytesIO(content)) for content in contents]

    def damage(self, study_uid: str) -> None:
        """Remove files of a study from the disk, so that it is listed and cannot be fetched.

        Orthanc reads one file of each study to list it; that one stays.
        """
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid}}
        for each in self._call("POST", "/tools/find", json=query).json():
            uuid = self.get(f"/instances/{each}/attachments/dicom/info").json()["Uuid"]
            path = self.folder / "db" / uuid[:2] / uuid[2:4] / uuid
            content = path.read_bytes()
            path.unlink()
            try:
                self.get("/dicom-web/studies", headers={"Accept": "application/dicom+json"})
            except requests.HTTPError:
                path.write_bytes(content)


def missing_tools() -> list[str]:
    """Return the names of what `make test-pacs` would install."""
    found = [name for name in ("Orthanc", "dciodvfy", "dsrdump", "java") if not shutil.which(name)]
    files = [PLUGINS / "libOrthancDicomWeb.so", Path("/usr/share/java/pixelmed.jar")]
    return found + [str(path) for path in files if not path.exists()]
