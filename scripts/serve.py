"""Start the server on this machine, show a first answer, and stay until Ctrl-C.

Run through `make serve`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
START_S = 180
ANSWER_S = 300
STOP_S = 20
BRAIN = "sample_brain_mr"
SESSION = requests.Session()
QUESTION = "Which imaging modality is this?"
SAMPLES = {
    # The MNI152 template: the mean of 152 healthy brains.
    f"{BRAIN}.nii.gz": (
        "nilearn",
        "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    ),
    "sample_ct_slice.dcm": ("pydicom", "data/test_files/CT_small.dcm"),
    "sample_mr_slice.dcm": ("pydicom", "data/test_files/MR_small.dcm"),
}


class ServeError(Exception):
    """The server cannot be used; the message says what to do."""


def main() -> int:
    """Serve until told to stop; return 1 with one line if that cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", default="8000")
    parser.add_argument("--studies", default="", help="a folder; sample studies if left out")
    parser.add_argument("--checkpoint", default="radfound-mini")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    server = None
    try:
        _bear_the_token()
        port = _free_port(args.port)
        studies = _studies(args.studies)
        log = studies / ".radfound" / "server.log"
        server = _start(studies, port, args.checkpoint, log)
        _wait_until_healthy(server, port, log)
        _introduce(f"http://{HOST}:{port}", studies, log)
        if server.wait():
            raise ServeError(f"the server ended by itself; the end of {log}:\n{_tail(log)}")
    except ServeError as error:
        print(f"make serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopping ...", file=sys.stderr)
    finally:
        if server is not None:
            _stop(server)
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _bear_the_token() -> None:
    """Show the server that is started the token it asks for; the file comes first, as it does there."""
    token, file = os.environ.get("RADFOUND_TOKEN"), os.environ.get("RADFOUND_TOKEN_FILE")
    if file:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ServeError(f"RADFOUND_TOKEN_FILE: cannot be read ({error})") from error
    if token:
        SESSION.headers["X-RadFound-Token"] = token


def _free_port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ServeError(f"PORT: found {text!r}; expected a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, int(text)))
        except OSError as error:
            raise ServeError(
                f"port {text} cannot be used ({error.strerror}); choose another, as in "
                "`make serve PORT=8001`"
            ) from error
    return int(text)


def _studies(folder: str) -> Path:
    """Return the folder to serve, with sample studies where none was named."""
    studies = Path(folder).expanduser().resolve() if folder else ROOT / "studies"
    try:
        (studies / ".radfound").mkdir(parents=True, exist_ok=True)
        if not folder:
            put_samples(studies)
    except OSError as error:
        raise ServeError(f"{studies}: cannot be written ({error.strerror})") from error
    return studies


def put_samples(studies: Path) -> None:
    """Copy the sample studies that are not in a folder yet."""
    for name, (package, inside) in SAMPLES.items():
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ServeError(f"{package} is not installed; remove .venv and run make serve again")
        if not (studies / name).exists():
            part = studies / f".{name}.part"
            shutil.copyfile(Path(spec.submodule_search_locations[0]) / inside, part)
            os.replace(part, studies / name)


def _start(studies: Path, port: int, checkpoint: str, log: Path) -> subprocess.Popen[bytes]:
    command = [
        *(sys.executable, "-m", "monailabel.main", "start_server"),
        *("--app", str(ROOT / "monailabel_app"), "--studies", str(studies)),
        *("--host", HOST, "--port", str(port), "--conf", "checkpoint", checkpoint),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}
    print("starting the server ...", file=sys.stderr, flush=True)
    with open(log, "wb") as output:
        # A group of its own: Ctrl-C reaches this script alone, which then stops all of it.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise ServeError(f"the server did not start; the end of {log}:\n{_tail(log)}")
        try:
            if SESSION.get(f"http://{HOST}:{port}/radfound/health", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    raise ServeError(f"the server did not answer within {START_S} s; see {log}")


def _introduce(url: str, studies: Path, log: Path) -> None:
    """Show a caption and an answer, and where to go from here."""
    images = sorted(SESSION.get(f"{url}/datastore/?output=all", timeout=30).json()["objects"])
    if images:
        image = BRAIN if BRAIN in images else images[0]
        print(
            "asking for a first caption (the first time, the model is unpacked) ...",
            file=sys.stderr,
        )
        print(f"\nStudy     {image}")
        print(f"Caption   {_said(_ask(url, 'radfound_caption', image, {}))}")
        print(f"Question  {QUESTION}", flush=True)
        print(f"Answer    {_said(_ask(url, 'radfound_vqa', image, {'question': QUESTION}))}")
    else:
        print(f"\n{studies} holds no studies yet; put NIfTI, NRRD, PNG, JPEG or DICOM there")
    print(f"\nServing {studies} (log: {log}). Not a medical device.")
    print("In 3D Slicer, paste this as the server's address:\n")
    print(f"    {url}\n")
    print("Ctrl-C stops the server.", flush=True)


def _ask(url: str, model: str, image: str, params: dict[str, Any]) -> dict[str, Any]:
    try:
        response = SESSION.post(
            f"{url}/infer/{model}",
            params={"image": image, "output": "json"},
            data={"params": json.dumps(params)},
            timeout=ANSWER_S,
        )
        found = response.json()
    except (requests.RequestException, ValueError) as error:
        raise ServeError(f"{model}: no answer ({error})") from error
    if not response.ok:
        detail = found.get("detail")
        raise ServeError(detail["message"] if isinstance(detail, dict) else str(detail))
    return dict(found)


def _said(answer: dict[str, Any]) -> str:
    notes = [f"{answer['timings_ms']['total'] / 1000:.1f} s"]
    if answer["confidence"] is not None:
        notes.insert(0, f"confidence {answer['confidence']:.2f}")
    text = " ".join(answer["text"].split())
    return f"{text}   ({', '.join(notes)})"


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Ask the server to stop, then make it, with whatever it started."""
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(STOP_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    server.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


if __name__ == "__main__":
    sys.exit(main())
