"""A stub server for the self test, with fixed answers and no model."""

import gzip
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Optional
from urllib.parse import parse_qs, urlsplit

import numpy as np

from ..net import protocol

_MODEL = {"name": "radfound-stub"}
_STRATEGIES = {"first": "First unread study by name", "random": "Random unread study"}
_TEXTS = {
    "vqa": "Yes, a small one on the left.",
    "caption": "Axial CT of the chest with a round lesion in the left lung.",
    "report": "Findings: A round lesion of 20 mm in the left lung. No effusion. "
    "Impression: Lesion of the left lung; follow up.",
}
_SECTIONS = {
    "findings": "A round lesion of 20 mm in the left lung. No effusion.",
    "impression": "Lesion of the left lung; follow up.",
}

_NOTE = (
    "This answer comes from a reader, which has no evidence map. A map for it shows where the language model "
    "looks for the same words."
)


class StubServer:
    """A stub RadFound server on this computer, for one client at a time.

    Parameters
    ----------
    port : int
        0 for any free port.

    Attributes
    ----------
    texts : dict
        Answer to each task.
    pause_s : float
        Pause between two words.
    token : str
        Required token; empty for none.
    fault : tuple or None
        (status, body) of every reply except that of "/radfound/health".
    evidence : bool
        Whether to send evidence maps.
    steps : int
        Steps of a training; each takes `step_s`.
    gate : str
        Why the gate refuses a training; empty if it passes.
    confidence : float or None
        Confidence of an answer to a question.
    models : tuple of str
        Names of the models, if there are several.
    cannot_learn : dict
        Why a model cannot be taught, by its name.
    templates : list of dict
        The department's templates.
    archive : str
        "reader" if reports can be sent to an archive; `archived` holds what was sent.
    changes : dict
        Fields to change in each answer.
    readers : dict
        A reader's answer to a question, by its words; recalled unless the request forbids it.
    effect : int
        Number of unread studies on which a correction changes the answer.
    wordings : list of dict
        Templates of the department's wording.
    withdrawn : list of (correction, author)
    explained, trained : list of dict
        The bodies of requests for a map and for a training.
    adapters_of : list of str or None
        The model of each request about adapters.
    readers_of_next : list of str
        Who asked for the next study.
    requests : list of (method, path)
    """

    def __init__(self, port: int = 0) -> None:
        self.texts = dict(_TEXTS)
        self.pause_s = 0.0
        self.token = ""
        self.fault: Optional[tuple] = None
        self.evidence = True
        self.confidence: Optional[float] = 0.83
        self.models: tuple = ()
        self.cannot_learn: dict = {}
        self.templates: list = []
        self.changes: dict = {}
        self.readers: dict = {}
        self.effect = 0
        self.wordings: list = []
        self.withdrawn: list = []
        self.archive = ""
        self.archived: list = []
        self.steps, self.step_s, self.gate = 4, 0.05, ""
        self.images: dict = {}
        self.studies: dict = {}
        self.corrections: list = []
        self.adapters: list = []
        self.active: Optional[str] = None
        self.history: list = []
        self.asked: list = []
        self.explained: list = []
        self.trained: list = []
        self.adapters_of: list = []
        self.readers_of_next: list = []
        self.requests: list = []
        self.cancelled = threading.Event()
        self._training: Optional[float] = None
        self._stopped_at: Optional[int] = None
        self._count = 0
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.daemon = True
        self._thread.start()

    @property
    def port(self) -> int:
        """Port of the server."""
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """Address of the server."""
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2.0)

    # Replies ----------------------------------------------------------------------------------

    def _health(self) -> dict:
        return {
            **protocol.HEALTH_STATUS,
            "version": "stub",
            "model": {**_MODEL, "loaded": True, "adapter": self.active, "problem": None},
            "corrections": len(self.corrections),
            "training": self._is_training,
            "models": [
                {
                    **protocol.HEALTH_STATUS["models"][0],
                    "name": name,
                    "cannot_learn": self.cannot_learn.get(name),
                }
                for name in self.models or (_MODEL["name"],)
            ],
            **({"pacs": {"write": self.archive}} if self.archive else {}),
        }

    def listed_studies(self) -> list:
        """Return the studies as `GET /radfound/studies` lists them."""
        read = {image for row in self.corrections for image in row["images"]}
        return [
            {**protocol.STUDY, "id": name, "name": name, "why": None, "state": "read"}
            if name in read
            else {**protocol.STUDY, "id": name, "name": name}
            for name in self.studies
        ]

    def _info(self) -> dict:
        return {
            "name": "RadFound",
            "models": {f"radfound_{task}": {} for task in _TEXTS},
            "strategies": {name: {"description": text} for name, text in _STRATEGIES.items()},
        }

    def _answer(self, body: dict) -> dict:
        self._count += 1
        task = body.get("task", "vqa")
        reader = self.readers.get(body.get("question")) if body.get("recall", True) else None
        return {
            **protocol.ANSWER,
            "id": f"answer-{self._count}",
            "task": task,
            "images": body.get("images") or [body.get("image")],
            "question": body.get("question"),
            "text": self.texts[task],
            "sections": dict(_SECTIONS) if task == "report" else None,
            "confidence": self.confidence if task == "vqa" and not reader else None,
            "uncertainty": 0.2,
            **self.changes,
            **(reader or {}),
            **({"evidence_note": _NOTE} if reader and "evidence_note" not in reader else {}),
            "model": {
                **protocol.MODEL_VERSION,
                **_MODEL,
                **({"name": body["model"]} if body.get("model") else {}),
                "adapter": self.active,
            },
        }

    def _map(self, image: str, text: str) -> bytes:
        """Return an evidence map in the geometry of a known NRRD image; another one for another text."""
        known = self.images.get(image) or self.studies[image]
        head, _end, _voxels = known.partition(b"\n\n")
        lines = dict(line.split(": ", 1) for line in head.decode("ascii").split("\n")[1:])
        sizes = lines["sizes"].split()[-3:]
        axes = np.meshgrid(
            *(np.linspace(-1, 1, int(size)) for size in reversed(sizes)), indexing="ij"
        )
        middle = (0.25, 0.12, 0.5 - len(text) % 11 / 10)
        far = sum((axis - place) ** 2 for axis, place in zip(axes, middle))
        lines.update(
            type="unsigned char",
            dimension="3",
            sizes=" ".join(sizes),
            kinds="domain domain domain",
            encoding="gzip",
        )
        lines["space directions"] = lines["space directions"].replace("none ", "")
        values = np.rint(255 * np.exp(-20 * far)).astype(np.uint8)
        text_lines = ["NRRD0004", *(f"{key}: {value}" for key, value in lines.items()), "", ""]
        return "\n".join(text_lines).encode("ascii") + gzip.compress(values.tobytes(), 1)

    # Training ---------------------------------------------------------------------------------

    @property
    def _is_training(self) -> bool:
        return self._training is not None and self._step() < self.steps

    def _step(self) -> int:
        if self._stopped_at is not None:
            return self._stopped_at
        began = self._training if self._training is not None else time.monotonic()
        return min(self.steps, int((time.monotonic() - began) / max(self.step_s, 1e-6)))

    def _train(self) -> tuple:
        if self._is_training:
            message = "train: one runs and 0 wait, of at most 4"
            return 429, {"detail": {"code": protocol.ALREADY_RUNNING, "message": message}}
        self._training, self._stopped_at = time.monotonic(), None
        return 200, {"status": "SUBMITTED"}

    def _stop(self) -> tuple:
        if self._is_training:
            self._stopped_at, self._training = self._step(), None
        return 200, {}

    def _training_status(self) -> dict:
        step, count = self._step(), len(self.corrections)
        status = {**protocol.TRAINING_STATUS, "checks": [], "corrections": count, "skipped": []}
        if self._stopped_at is not None:
            status.update(state="stopped", seconds_left=None)
        elif self._training is None:
            status.update(state="idle", phase="", step=0, steps=0, seconds_left=None, loss=None)
        elif step < self.steps:
            left = (self.steps - step) * self.step_s
            status.update(step=step, steps=self.steps, seconds_left=left)
        else:
            status.update(phase="", seconds_left=None, loss=None, **self._learnt())
        return status

    def _learnt(self) -> dict:
        checks = [
            protocol.CHECK,
            {**protocol.CHECK, "name": "answers end", "words": "100% of 32 end by themselves"},
            {**protocol.CHECK, "name": "held-out corrections", "words": "not done", "passed": None},
        ]
        if self.gate:
            failed = {**protocol.CHECK, "name": "regression", "words": self.gate, "passed": False}
            message = f"regression: {self.gate}"
            return {"state": "refused", "message": message, "checks": [*checks, failed]}
        metrics = {"corrections": float(len(self.corrections))}
        name = f"a-{len(self.adapters):04d}"
        if self._training is not None and self._training not in [a["_of"] for a in self.adapters]:
            name = f"a-{len(self.adapters) + 1:04d}"
            created = time.strftime("%Y-%m-%dT%H:%M:%S.999Z", time.gmtime())
            manifest = {"created": created, "metrics": metrics}
            self.adapters.append({"id": name, "manifest": manifest, "_of": self._training})
            self._activate(name)
        message = f"published {name}"
        return {"state": "published", "message": message, "adapter": name, "checks": checks}

    def _activate(self, name: Optional[str]) -> None:
        self.history.append(self.active)
        self.active = name

    def _list_adapters(self) -> dict:
        rows = [
            {"id": row["id"], "active": row["id"] == self.active, "manifest": row["manifest"]}
            for row in self.adapters
        ]
        return {"active": self.active, "adapters": rows}


class _Handler(BaseHTTPRequestHandler):
    stub: StubServer
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

    def log_message(self, *_arguments: Any) -> None:
        """Write no log."""

    def _serve(self) -> None:
        stub, parts = self.stub, urlsplit(self.path)
        stub.requests.append((self.command, parts.path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if stub.token and self.headers.get("Authorization") != f"Bearer {stub.token}":
            self._reply(401, {"detail": "Not authenticated"})
        elif stub.fault is not None and parts.path != "/radfound/health":
            self._reply(*stub.fault)
        else:
            try:
                self._route(parts.path, query, body)
            except (BrokenPipeError, ConnectionResetError):
                stub.cancelled.set()

    def _route(self, path: str, query: dict, body: bytes) -> None:
        stub, route = self.stub, (self.command, path)
        if route == ("POST", "/radfound/ask"):
            self._stream(json.loads(body))
        elif route == ("POST", protocol.EVIDENCE):
            self._evidence(json.loads(body))
        elif path == "/datastore/image":
            self._image(query["image"], body)
        elif route == ("GET", "/info/"):
            self._reply(200, stub._info())
        elif route == ("GET", "/radfound/health"):
            self._reply(200, stub._health())
        elif route == ("GET", "/radfound/corrections"):
            self._reply(200, {"corrections": stub.corrections})
        elif route == ("POST", "/radfound/corrections"):
            self._record(json.loads(body))
        elif path.startswith("/radfound/corrections/"):
            self._taught(path.split("/")[3], path.split("/")[4], body)
        elif path.startswith(protocol.WORDINGS):
            self._wordings(path, body)
        elif path.startswith("/radfound/adapters"):
            stub.adapters_of.append(query.get("model"))
            self._adapters(path)
        elif route == ("GET", protocol.STUDIES):
            self._reply(200, {"studies": stub.listed_studies()})
        elif route == ("GET", protocol.TEMPLATES):
            self._reply(200, {"templates": stub.templates})
        elif route == ("POST", protocol.SEND_TO_ARCHIVE):
            stub.archived.append(json.loads(body))
            self._reply(200, {"status": "queued"})
        elif route == ("GET", protocol.TRAINING):
            self._reply(200, stub._training_status())
        elif path.startswith("/train/"):
            if body:
                stub.trained.append(json.loads(body))
            act = {"POST": stub._train, "DELETE": stub._stop}
            self._reply(*act[self.command]())
        elif path.startswith("/activelearning/"):
            stub.readers_of_next.append(json.loads(body)["client_id"])
            name = next(iter(stub.studies), None)
            self._reply(200, {"id": name, "reason": "first by name"} if name else {})
        else:
            self._reply(404, {"detail": "Not Found"})

    def _stream(self, body: dict) -> None:
        stub = self.stub
        stub.asked.append(body)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        answer = stub._answer(body)
        for word in re.findall(r"\S+\s*", answer["text"]):
            self._event("token", {"text": word})
            time.sleep(stub.pause_s)
        self._event("answer", answer)

    def _event(self, name: str, data: dict) -> None:
        self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def _evidence(self, body: dict) -> None:
        stub = self.stub
        stub.explained.append(body)
        if not stub.evidence:
            message = "evidence: stub has no evidence maps; ask for the answer alone"
            self._reply(422, {"detail": {"code": "not_supported", "message": message}})
        else:
            time.sleep(stub.pause_s)
            text = body.get("text") or body["answer"]["text"]
            content = stub._map(body["answer"]["images"][0], text)
            self._reply(200, content, "application/octet-stream")

    def _image(self, image: str, body: bytes) -> None:
        stub = self.stub
        if self.command == "PUT":
            stub.images[image] = body[body.index(b"\r\n\r\n") + 4 : body.rindex(b"\r\n--")]
            self._reply(200, {"image": image})
        elif image in stub.studies:
            name = f'attachment; filename="{image}.nrrd"'
            self._reply(200, stub.studies[image], "application/octet-stream", name)
        else:
            self._reply(200 if image in stub.images else 404, stub.images.get(image, b""))

    def _record(self, correction: dict) -> None:
        known = [row["id"] for row in self.stub.corrections]
        is_new = correction["id"] not in known
        if is_new:
            self.stub.corrections.append(correction)
        self._reply(200, {"id": correction["id"], "recorded": is_new})

    def _taught(self, correction: str, verb: str, body: bytes) -> None:
        stub = self.stub
        if verb == "withdraw":
            stub.withdrawn.append((correction, json.loads(body)["author"]))
            stub.corrections = [row for row in stub.corrections if row["id"] != correction]
            self._reply(200, {"id": correction, "withdrawn": True})
            return
        effect = protocol.EFFECT_OF_CORRECTION
        changes = [effect["changes"][0]] * stub.effect
        self._reply(200, {**effect, "correction": correction, "changes": changes})

    def _wordings(self, path: str, body: bytes) -> None:
        stub = self.stub
        if self.command == "POST":
            _empty, _radfound, _wordings, template, verb = path.split("/")
            author = json.loads(body)["author"]
            state = {"accept": "accepted", "refuse": "refused"}[verb]
            stub.wordings = [
                {**row, "state": state, "author": author} if row["id"] == template else row
                for row in stub.wordings
            ]
            self._reply(200, {"id": template, "state": state, "version": 1})
        else:
            self._reply(200, {"wordings": stub.wordings})

    def _adapters(self, path: str) -> None:
        stub = self.stub
        if path.endswith("/activate"):
            name = path.split("/")[-2]
            stub._activate(None if name == "base" else name)
        elif path.endswith("/rollback"):
            if not stub.history:
                message = "nothing was active before; activate an adapter or base"
                self._reply(400, {"detail": {"code": "bad_request", "message": message}})
                return
            stub.active = stub.history.pop()
        self._reply(200, stub._list_adapters())

    def _reply(
        self, status: int, content: Any, kind: str = "application/json", disposition: str = ""
    ) -> None:
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if disposition:
            self.send_header("Content-Disposition", disposition)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
