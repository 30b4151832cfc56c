"""Clients that write to every route of a server and record the acknowledged writes."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import requests
from load import correction

TIMEOUT_S, PAUSE_S = 120, 0.02
_TAG = "final"


def nifti(number: int) -> bytes:
    """Return a small volume that is unique to the number."""
    voxels = np.full((4, 4, 2), number % 30_000, np.int16)
    voxels[0, 0, 0] = number // 30_000
    return bytes(nibabel.Nifti1Image(voxels, np.diag([1.0, 1, 2, 1])).to_bytes())


class Writers:
    """One client for each route; a value that replaces an earlier one has a larger number.

    Parameters
    ----------
    studies : list of str
        Ids of studies in the datastore.
    """

    def __init__(self, studies: list[str]):
        self._studies = studies
        self._made = 0
        self._acknowledged: dict[tuple[str, str], int] = {}
        self._fresh: set[tuple[str, str]] = set()  # acknowledged since the last call of `lost`
        self._counting = threading.Lock()
        self.count = self.refused = self.failed = 0
        self._routes: dict[str, Callable[[requests.Session, str, int], Iterator[Any]]] = {
            "correction": self._correct,
            "label": self._label,
            "image info": self._describe,
            "upload": self._upload,
            "session": self._lend,
            "next": self._choose,
        }

    @contextmanager
    def running(self, url: str) -> Iterator[None]:
        """Write until the server has ended, which must happen before the block ends."""
        clients = [
            threading.Thread(target=self._write, args=(route, url)) for route in self._routes
        ]
        for client in clients:
            client.start()
        try:
            yield
        finally:
            for client in clients:
                client.join()

    def lost(self, url: str) -> list[str]:
        """Return acknowledged writes that a server has lost; the content of new files is compared."""
        index = _get(f"{url}/datastore/?output=all").json()["objects"]
        log = _get(f"{url}/radfound/corrections").json()["corrections"]
        corrections = {row["id"] for row in log}
        missing = [
            f"{kind} {name} {number}"
            for (kind, name), number in self._acknowledged.items()
            if not _is_listed(kind, name, number, index, corrections)
            or ((kind, name) in self._fresh and not _is_kept(url, kind, name, number))
        ]
        self._fresh.clear()
        return missing

    def _write(self, route: str, url: str) -> None:
        with requests.Session() as session:
            while True:
                with self._counting:
                    self._made += 1
                    number = self._made
                try:
                    for response in self._routes[route](session, url, number):
                        self.count += response.ok
                        self.refused += response.status_code == 503
                        self.failed += response.status_code >= 500 and response.status_code != 503
                except requests.RequestException:
                    return
                time.sleep(PAUSE_S)

    def _study(self, number: int) -> str:
        return self._studies[number % len(self._studies)]

    # One client each: send a request and record the server's acknowledgement. -------------------

    def _correct(self, session: requests.Session, url: str, number: int) -> Iterator[Any]:
        name = f"kill-{number}"
        body = correction(name, self._study(number))
        response = session.post(f"{url}/radfound/corrections", json=body, timeout=TIMEOUT_S)
        yield self._note(response, "correction", name, number)

    def _label(self, session: requests.Session, url: str, number: int) -> Iterator[Any]:
        image = self._study(number)
        response = session.put(
            f"{url}/datastore/label",
            params={"image": image, "tag": _TAG},
            data={"params": json.dumps({"label": number})},
            files={"label": ("label.nrrd", str(number))},
            timeout=TIMEOUT_S,
        )
        if response.ok:  # a new label replaces the info of the old one
            self._acknowledged.pop(("label info", image), None)
        yield self._note(response, "label", image, number)
        response = session.put(
            f"{url}/datastore/label/info",
            params={"label": image, "tag": _TAG},
            data={"info": json.dumps({"label info": number})},
            timeout=TIMEOUT_S,
        )
        yield self._note(response, "label info", image, number)

    def _describe(self, session: requests.Session, url: str, number: int) -> Iterator[Any]:
        image = self._study(number)
        response = session.put(
            f"{url}/datastore/image/info",
            params={"image": image},
            data={"info": json.dumps({"image info": number})},
            timeout=TIMEOUT_S,
        )
        yield self._note(response, "image info", image, number)

    def _upload(self, session: requests.Session, url: str, number: int) -> Iterator[Any]:
        image = f"upload-{number}"
        response = session.put(
            f"{url}/datastore/image",
            params={"image": image},
            files={"file": (f"{image}.nii", io.BytesIO(nifti(number)))},
            timeout=TIMEOUT_S,
        )
        yield self._note(response, "upload", image, number)
        if number % 3 == 0:
            self._acknowledged.pop(("upload", image), None)  # may be there or not from here on
            response = session.delete(
                f"{url}/datastore/image", params={"id": image}, timeout=TIMEOUT_S
            )
            yield self._note(response, "removed", image, number)

    def _lend(self, session: requests.Session, url: str, number: int) -> Iterator[Any]:
        files = {"files": ("volume.nii", io.BytesIO(nifti(number)))}
        response = session.put(f"{url}/session/", files=files, timeout=TIMEOUT_S)
        name = response.json()["session_id"] if response.ok else ""
        yield self._note(response, "session", name, number)

    def _choose(self, session: requests.Session, url: str, number: int) -> Iterator[Any]:
        body = {"client_id": f"reader {number % 5}"}
        yield session.post(f"{url}/activelearning/hybrid", json=body, timeout=TIMEOUT_S)

    def _note(
        self, response: requests.Response, kind: str, name: str, number: int
    ) -> requests.Response:
        if response.ok:
            self._acknowledged[kind, name] = number
            self._fresh.add((kind, name))
        return response


def _is_listed(
    kind: str, name: str, number: int, index: dict[str, Any], corrections: set[str]
) -> bool:
    """Whether a server lists an acknowledged write or a newer one."""
    entry = index.get(name, {"image": {"info": {}}, "labels": {}})
    if kind == "correction":
        return name in corrections
    if kind in ("label", "label info"):
        label = entry["labels"].get(_TAG, {"info": {}})
        return bool(label["info"].get(kind, -1) >= number)
    if kind == "image info":
        return bool(entry["image"]["info"].get(kind, -1) >= number)
    if kind in ("upload", "removed"):
        return (name in index) == (kind == "upload")
    return True


def _is_kept(url: str, kind: str, name: str, number: int) -> bool:
    """Whether a server returns an acknowledged file or a newer one in its place."""
    if kind == "label":
        found = _get(f"{url}/datastore/label", label=name, tag=_TAG)
        return found.ok and int(found.content) >= number
    if kind == "upload":
        return _get(f"{url}/datastore/image", image=name).content == nifti(number)
    return kind != "session" or _get(f"{url}/session/{name}").ok


def put_volumes(folder: Path, count: int) -> list[str]:
    """Write small studies into a folder; return their ids."""
    names = [f"study-{number:04d}" for number in range(count)]
    for number, name in enumerate(names):
        (folder / f"{name}.nii").write_bytes(nifti(number))
    return names


def _get(url: str, **params: str) -> requests.Response:
    return requests.get(url, params=params, timeout=TIMEOUT_S)
