"""Start the server on this machine, show first answers, and run until Ctrl-C.

Run through `make serve`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from monailabel_app.lib.lifecycle import settings  # noqa: E402
from monailabel_app.lib.pacs.settings import PacsSettings  # noqa: E402
from radfound.engine.models.choice import MINI, parse_choice  # noqa: E402
from radfound.exceptions import RadFoundError  # noqa: E402
from radfound.records.durable import replace_with_copy  # noqa: E402
from radfound.records.state import state_folder  # noqa: E402

if TYPE_CHECKING:
    from requests import Response

HOST = "127.0.0.1"
START_S = 180
ANSWER_S = 300
LISTING_S = 60
STOP_S = 20
BRAIN = "sample_brain_mr"
QUESTIONS = (
    "Which imaging modality is this?",
    "In which plane is this image?",
    "Which body region is shown?",
)
TRIED = 5  # most studies to try until one can be read
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
    """The server cannot be used; the message gives the remedy."""


def main() -> int:
    """Serve until interrupted; return 1 with one line on failure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", default="8000")
    parser.add_argument(
        "--studies", default="", help="a folder, or an archive's DICOMweb; default: sample studies"
    )
    parser.add_argument("--model", default=MINI, help="a checkpoint, a folder or openai:ADDRESS")
    parser.add_argument("--conf", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--check", action="store_true", help="check the settings and exit")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    server = None
    try:
        port, studies = _check(args)
        if args.check:
            return 0
        server = Server(studies, port, _settings(args))
        server.start()
        server.wait_until_healthy()
        _introduce(server)
        if server.process.wait():
            raise ServeError(f"the server ended by itself; {server.last_words()}")
    except (ServeError, RadFoundError) as error:
        print(f"make serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopping ...", file=sys.stderr)
    finally:
        if server is not None:
            server.stop()
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _check(args: argparse.Namespace) -> tuple[int, Path | str]:
    """Check all settings before anything is loaded; return port and studies."""
    conf = dict(args.conf)
    settings.check_token(os.environ)
    settings.check_conf(conf)
    settings.readers_who_confirm(conf)
    _check_model(_settings(args))
    port = _free_port(args.port)
    if args.studies.startswith(("http://", "https://")):
        settings.check_state_of_archive(conf)
        PacsSettings.of(args.studies, conf, os.environ)
        return port, args.studies
    studies = Path(args.studies).expanduser().resolve() if args.studies else ROOT / "studies"
    if args.studies:
        settings.check_studies(studies)
    return port, studies


def _settings(args: argparse.Namespace) -> dict[str, str]:
    """Return the values for `--conf`; a model named there comes before the default."""
    conf = dict(args.conf)
    named = {"model", "models", "checkpoint"} & set(conf)
    return conf if named and args.model == MINI else {"model": args.model, **conf}


def _check_model(conf: dict[str, str]) -> None:
    """Check what can be checked before the packages are installed that read a file of models."""
    if "models" in conf:
        if not Path(conf["models"]).expanduser().is_file():
            raise ServeError(f"models: {conf['models']} is no file; expected a YAML file")
        return
    hosts = [host.strip() for host in conf.get("send_images_to", "").split(",") if host.strip()]
    parse_choice(conf.get("model", conf.get("checkpoint", "")), hosts)


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


def put_samples(studies: Path) -> None:
    """Copy the missing sample studies into a folder."""
    for name, (package, inside) in SAMPLES.items():
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ServeError(f"{package} is not installed; remove .venv and run make serve again")
        if not (studies / name).exists():
            source = Path(spec.submodule_search_locations[0]) / inside
            replace_with_copy(studies / name, source, private=False)


class Server:
    """The server's process and a client of it.

    Parameters
    ----------
    studies : Path or str
        The folder of the samples is created if missing; a text is the address of an archive.
    port : int
    conf : dict of str to str
    """

    def __init__(self, studies: Path | str, port: int, conf: dict[str, str]):
        import requests

        if device := conf.get("device"):
            from radfound.model.devices import device_of

            device_of(device)
        if studies == ROOT / "studies":
            _make_samples(ROOT / "studies")
        self.studies, self.url = studies, f"http://{HOST}:{port}"
        self.state = state_folder(Path(studies), conf.get("state", ""))
        self.log = self.state / ".radfound" / "server.log"
        self._command = [
            *(sys.executable, "-m", "monailabel.main", "start_server"),
            *("--app", str(ROOT / "monailabel_app"), "--studies", str(studies)),
            *("--host", HOST, "--port", str(port)),
            *(word for setting in conf.items() for word in ("--conf", *setting)),
        ]
        self._session = requests.Session()
        if token := settings.check_token(os.environ):
            self._session.headers["X-RadFound-Token"] = token

    def start(self) -> None:
        """Start the process; its output goes to the log."""
        environment = {**os.environ, "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1")}
        print("starting the server ...", file=sys.stderr, flush=True)
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            output = open(self.log, "wb")
        except OSError as error:
            raise ServeError(f"{self.state}: cannot be written ({error.strerror})") from error
        with output:
            # A process group of its own: Ctrl-C reaches only this script, which then stops the group.
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def wait_until_healthy(self) -> None:
        """Wait until this process answers; the pid shows that no other server took the port."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise ServeError(f"the server did not start; {self.last_words()}")
            try:
                health = self.call("GET", "/radfound/health", timeout=5)
                if health.ok and health.json().get("pid") == self.process.pid:
                    return
            except (OSError, ValueError):
                pass
            time.sleep(0.2)
        raise ServeError(f"the server did not answer within {START_S} s; see {self.log}")

    def call(self, method: str, path: str, **kwargs: Any) -> Response:
        """Send a request with the token."""
        return self._session.request(method, self.url + path, **kwargs)

    def images(self) -> list[str]:
        """Return the ids of the studies, sorted; raises ServeError with the server's message."""
        try:
            response = self.call("GET", "/datastore/?output=all", timeout=LISTING_S)
            return sorted(_checked(response)["objects"])
        except (OSError, ValueError) as error:
            raise ServeError(f"the studies cannot be listed ({error})") from error

    def ask(self, image: str, question: str) -> dict[str, Any]:
        """Return an answer; raises ServeError with the server's message."""
        import requests

        try:
            response = self.call(
                "POST",
                "/infer/radfound_vqa",
                params={"image": image, "output": "json"},
                data={"params": json.dumps({"question": question})},
                timeout=ANSWER_S,
            )
            return _checked(response)
        except requests.Timeout as error:
            raise ServeError(
                f"no answer within {ANSWER_S} s; this machine may be busy, so ask later in the browser"
            ) from error
        except (OSError, ValueError) as error:
            raise ServeError(f"no answer ({error})") from error

    def last_words(self) -> str:
        """Return the last error in the log, or the end of the log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        reasons = [line for line in lines if line.startswith("radfound.exceptions.")]
        if reasons:
            return f"{reasons[-1].partition(': ')[2]} (log: {self.log})"
        return "\n".join([f"the end of {self.log}:", *lines[-15:]])

    def stop(self) -> None:
        """Terminate the process, then kill its whole group."""
        if not hasattr(self, "process"):
            return
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def _checked(response: Response) -> dict[str, Any]:
    """Return the JSON of a reply; raises ServeError with its message if it is a refusal."""
    found = response.json()
    if not response.ok:
        detail = found.get("detail")
        raise ServeError(detail["message"] if isinstance(detail, dict) else str(detail))
    return dict(found)


def _make_samples(studies: Path) -> None:
    try:
        studies.mkdir(exist_ok=True)
        put_samples(studies)
    except OSError as error:
        raise ServeError(f"{studies}: cannot be written ({error.strerror})") from error


def _introduce(server: Server) -> None:
    """Show first answers about a study, and how to connect."""
    try:
        images = server.images()
    except ServeError as error:  # an archive that is down now may answer later
        images = []
        print(f"\n{error}")
    else:
        if not images:
            print(f"\n{server.studies} holds no studies yet{_where_to_put_some(server.studies)}")
    if images:
        images.sort(key=lambda image: image != BRAIN)
        print("asking first questions (the first time, the model is unpacked) ...", file=sys.stderr)
        any(_show(server, image) for image in islice(images, TRIED))
    count = f"{len(images)} {'study' if len(images) == 1 else 'studies'}"
    print(f"\nServing {count} of {server.studies} (log: {server.log}).", end=" ")
    print("Not a medical device.")
    if server.state != server.studies:
        print(
            f"Corrections, adapters, uploads and labels are kept in {server.state}, and nothing is\n"
            "written beside the studies; name it as --studies to `radfound corrections` and `adapters`."
        )
    print(f"In a browser: {server.url}/radfound/panel")
    print("In 3D Slicer, paste this as the server's address:\n")
    print(f"    {server.url}\n")
    print("Ctrl-C stops the server.", flush=True)


def _where_to_put_some(studies: Path | str) -> str:
    return "" if isinstance(studies, str) else "; put NIfTI, NRRD, PNG, JPEG or DICOM there"


def _show(server: Server, image: str) -> bool:
    """Print modality, plane and region of a study; return False, after printing the error, if it fails."""
    print(f"\nStudy     {image}")
    for question in QUESTIONS:
        try:
            answer = server.ask(image, question)
        except ServeError as error:
            print(f"          {error}")
            return False
        print(f"Question  {question}\nAnswer    {_formatted(answer)}", flush=True)
    return True


def _formatted(answer: dict[str, Any]) -> str:
    notes = []
    if answer["confidence"] is not None:
        notes.append(f"confidence {answer['confidence']:.2f}")
    if answer["reason"]:
        notes.append(answer["reason"].rstrip("."))
    notes.append(f"{answer['timings_ms']['total'] / 1000:.1f} s")
    text = " ".join(answer["text"].split())
    return f"{text}   ({'; '.join(notes)})"


if __name__ == "__main__":
    sys.exit(main())
