"""What the extension repeats of the server's HTTP interface: routes, names, limits and examples.

The project's tests compare all of it with a running server and its OpenAPI description.
"""

from typing import Any

# Routes; a name in braces is filled in with `path`.
INFO = "/info/"
HEALTH = "/radfound/health"
ASK = "/radfound/ask"
EVIDENCE = "/radfound/evidence"
CORRECTIONS = "/radfound/corrections"
ADAPTERS = "/radfound/adapters"
ACTIVATE = "/radfound/adapters/{adapter}/activate"
ROLL_BACK = "/radfound/adapters/rollback"
WITHDRAW = "/radfound/corrections/{correction}/withdraw"
EFFECT = "/radfound/corrections/{correction}/effect"
WORDINGS = "/radfound/wordings"
ACCEPT_WORDING = "/radfound/wordings/{template}/accept"
REFUSE_WORDING = "/radfound/wordings/{template}/refuse"
TRAINING = "/radfound/training"
TRAIN = "/train/{model}"
STOP_TRAINING = "/train/"
IMAGE = "/datastore/image"
NEXT_STUDY = "/activelearning/{strategy}"
STUDIES = "/radfound/studies"
TEMPLATES = "/radfound/templates"
# Only where the server says that it writes to an archive.
SEND_TO_ARCHIVE = "/radfound/pacs/send"

USED = (
    ("GET", INFO),
    ("GET", HEALTH),
    ("POST", ASK),
    ("POST", EVIDENCE),
    ("GET", CORRECTIONS),
    ("POST", CORRECTIONS),
    ("GET", ADAPTERS),
    ("POST", ACTIVATE),
    ("POST", ROLL_BACK),
    ("POST", WITHDRAW),
    ("GET", EFFECT),
    ("GET", WORDINGS),
    ("POST", ACCEPT_WORDING),
    ("POST", REFUSE_WORDING),
    ("GET", TRAINING),
    ("POST", TRAIN),
    ("DELETE", STOP_TRAINING),
    ("GET", IMAGE),
    ("HEAD", IMAGE),
    ("PUT", IMAGE),
    ("POST", NEXT_STUDY),
    ("GET", STUDIES),
    ("GET", TEMPLATES),
)
"""Every call that the extension makes."""

# Names in requests and replies
ANSWER_SCHEMA = "radfound.answer/1"
CORRECTION_SCHEMA = "radfound.correction/1"
TRAINING_SCHEMA = "radfound.training_status/1"
TASKS = ("vqa", "caption", "report")
VERDICTS = ("accepted", "edited", "rejected")
SOURCES = ("model", "field", "recall", "head", "wording")
CANNOT_TELL = "Cannot tell from this picture with this model."
"""The text of an answer that the server does not give."""
TRAINING_STATES = ("idle", "running", "published", "refused", "failed", "stopped")
EVENTS = ("token", "answer", "error")
TRAINER = "radfound"
BASE = "base"
ALREADY_RUNNING = "already_running"
INTERNAL_ERROR = "internal_error"
SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".dcm", ".zip", ".png", ".jpg", ".jpeg")
"""Names of files that the server takes."""

# Limits of the server
MAX_TEXT_CHARS = 20_000
MAX_QUESTION_CHARS = 4_000
MAX_AUTHOR_CHARS = 200
MAX_IMAGES = 64
MAX_HISTORY_TURNS = 64
MAX_HISTORY_CHARS = 20_000
MAX_NEW_TOKENS = 512
KEEP_ALIVE_S = 15.0

# Examples
TURN = {"question": "Is this a CT?", "answer": "Yes."}
BOX = {"box_mm": [[0.0, 0.0, 0.0], [10.0, 10.0, 10.0]]}
PLANE = {"slice_mm": {"point": [0.0, 0.0, 0.0], "normal": [0.0, 0.0, 1.0]}}
QUESTION = {
    "task": "vqa",
    "image": "ct01",
    "images": ["ct01", "ct02"],
    "question": "Is there an effusion?",
    "history": [TURN],
    "region": BOX,
    "max_new_tokens": 64,
    "recall": False,
}
MODEL_VERSION = {"name": "radfound-mini", "revision": "0123456789ab", "adapter": None}
ANSWER = {
    "schema": ANSWER_SCHEMA,
    "id": "an-answer",
    "task": "vqa",
    "images": ["ct01"],
    "question": "Is there an effusion?",
    "text": "No.",
    "sections": None,
    "confidence": 0.83,
    "uncertainty": 0.21,
    "evidence": None,
    "evidence_note": None,
    "model": MODEL_VERSION,
    "timings_ms": {},
    "finished": True,
    "shown": None,
    "source": "model",
    "reason": None,
    "model_text": None,
    "corrected_by": None,
    "corrected_on": None,
    "contradictions": [],
    "series": [],
    "series_rule": None,
}
SHOWN = {"recipe": "slices", "note": "2 of 40 slices", "slices": ["axial slice 1", "axial slice 2"]}
READER_TEXT = {
    "text": "No effusion.",
    "author": "another reader",
    "created": "2026-08-01T09:30:00.000Z",
    "correction": "another-correction",
}
CORRECTION = {
    "schema": CORRECTION_SCHEMA,
    "id": "a-correction",
    "answer_id": "an-answer",
    "images": ["ct01"],
    "task": "vqa",
    "question": "Is there an effusion?",
    "model_text": "No.",
    "verdict": "edited",
    "text": "Yes, a small one.",
    "author": "a reader",
    "created": "2026-08-01T09:30:00.000Z",
    "model": MODEL_VERSION,
    "image_hash": None,
    "region": None,
}
CHECK = {
    "name": "corrections",
    "words": "100% of 4 reproduced, at least 90% expected",
    "passed": True,
    "value": 1.0,
    "limit": 0.9,
}
TRAINING_STATUS = {
    "schema": TRAINING_SCHEMA,
    "id": "a-training",
    "state": "running",
    "phase": "training on all corrections",
    "message": "",
    "step": 20,
    "steps": 200,
    "seconds_left": 42.0,
    "loss": 0.7,
    "corrections": 4,
    "checks": [CHECK],
    "adapter": None,
    "seconds": None,
    "skipped": [{"id": "ct03", "reason": "ct03.nii.gz: cut off"}],
}
HEALTH_STATUS: dict[str, Any] = {
    "status": "ok",
    "version": "0.1.0",
    "pid": 4711,
    "model": {"name": "radfound-mini", "loaded": True, "adapter": None, "problem": None},
    "models": [
        {
            "name": "radfound-mini",
            "backend": "radfound",
            "loaded": True,
            "destination": None,
            "cannot_learn": None,
        }
    ],
    "corrections": 4,
    "training": False,
}
ADAPTER = {"id": "a-0001", "active": True, "manifest": {"metrics": {"corrections": 4.0}}}
ADAPTER_LIST = {"active": "a-0001", "adapters": [ADAPTER]}
RECEIPT = {"id": "a-correction", "recorded": True}
WITHDRAWAL = {"id": "a-correction", "withdrawn": True}
EFFECT_OF_CORRECTION: dict[str, Any] = {
    "correction": "a-correction",
    "question": "Is there an effusion?",
    "changes": [{"images": ["ct02"], "before": None, "after": "Yes.", "source": "head"}],
    "examined": 4,
    "not_examined": 0,
    "proposals": [],
    "told": "this correction changes the answer on 1 unread study",
}
WORDING = {
    "id": "0123456789ab",
    "task": "vqa",
    "question": "What is shown?",
    "text": "{modality} of the {region}",
    "corrections": ["a-correction", "another-correction"],
    "constant": [],
    "terms": None,
    "state": "proposed",
    "version": None,
    "author": None,
    "decided": None,
}
WORDING_STATES = ("proposed", "accepted", "refused", "replaced", "unsupported")
STUDY = {
    "id": "ct01",
    "name": "ct01",
    "state": "new",
    "drafts": 0,
    "why": "The model is less sure here than in most studies: Is there an effusion?",
}
STUDY_STATES = ("new", "asked", "read")
TEMPLATE = {"name": "Chest", "text": "Findings: {Is there an effusion?}"}
ERROR = {"detail": {"code": "study_unreadable", "message": "ct01.nii.gz: cut off; send it again"}}
