"""Calls of MONAI Label's client and of the Slicer extension's client to a running server.

Run by scripts/acceptance.py with the users' Python: `python acceptance_clients.py URL EXTENSION`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

BRAIN, SLICE = "sample_brain_mr", "sample_ct_slice"
# No classifier answers it, and radfound-mini is silent about its kind until a reader has answered.
ASKED, TAUGHT = "Whose brain is this?", "It is the mean of 152 healthy brains."
TRAINING_S = 1800


def main() -> int:
    """Call every function of both clients; print a line for each step."""
    url, extension = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        stock = MONAILabelClient(url, tmpdir=folder, client_id="acceptance")
        stock_client_asks(stock)
        stock_client_brings_images(stock, Path(folder))
        sys.path.insert(0, extension)
        extension_client_works(url, Path(folder))
        training_is_published_and_answers(stock, Path(folder))
        training_can_be_stopped(stock)
    return 0


def stock_client_asks(client: MONAILabelClient) -> None:
    """Connect, choose a study and ask about it."""
    client.set_server_url(client.get_server_url())
    expect(not client.auth_enabled(), "a server that asks for no log-in")
    refused(lambda: client.auth_token("a reader", "no password"), "a log-in")
    client.update_auth(None)
    client.auth_valid_token()
    info = client.info()
    expect("radfound_vqa" in info["models"], "the models in /info/")
    expect("learning_rate" in info["trainers"]["radfound"]["config"], "the trainer's settings")
    expect({BRAIN, SLICE} <= set(client.datastore()["objects"]), "the samples in the datastore")
    for strategy in info["strategies"]:
        expect(client.next_sample(strategy, {})["id"], f"a next study by {strategy}")
    for task in ("vqa", "caption", "report"):
        params = {"question": ASKED} if task == "vqa" else {"max_new_tokens": 32}
        expect(ask(client, task, BRAIN, params)["text"], f"an answer of radfound_{task}")
    done(f"the stock client asks: {', '.join(info['models'])}; {', '.join(info['strategies'])}")


def stock_client_brings_images(client: MONAILabelClient, folder: Path) -> None:
    """Upload an image, open a session, save and fetch a label, and check a refusal."""
    image = picture(folder / "picture.png")
    client.upload_image(str(image), "acceptance_picture")
    expect(ask(client, "caption", "acceptance_picture", {})["text"], "an answer about an upload")
    session = client.create_session(str(image))["session_id"]
    expect(client.get_session(session), "the session")
    params = {"question": ASKED}
    expect(ask(client, "vqa", "", params, session_id=session)["text"], "an answer in a session")
    client.remove_session(session)
    label = folder / "label.json"
    label.write_text(json.dumps([correction("acceptance_picture", "What is this?", "A ramp.")]))
    client.save_label("acceptance_picture", str(label), "final")
    fetched = client.download_label("acceptance_picture", "final")
    expect(json.loads(Path(fetched).read_text()), "the label that was saved")
    refused(lambda: client.wsi_infer("radfound_vqa", BRAIN), "a slide of pathology")
    done("the stock client uploads, opens a session, saves and fetches a label")


def extension_client_works(url: str, folder: Path) -> None:
    """Connect, ask, fetch evidence, correct and list, as the panel in 3D Slicer does."""
    from RadFoundLib.net.client import Client

    client = Client(url)
    expect(client.info().models, "models")
    file = picture(folder / "other.png", 1)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with open(file, "rb") as opened:
        client.upload(opened, file.name, digest)
    expect(client.has(digest), "the upload to be known")
    pieces: list[str] = []
    answer = client.ask("vqa", [BRAIN], ASKED, on_token=pieces.append)
    expect("".join(pieces).strip() == answer["text"], "the answer as it was streamed")
    caption = client.ask("caption", [BRAIN])
    overlay = client.evidence(caption, caption["text"].split(". ")[0])
    expect(overlay.startswith(b"NRRD"), "the evidence map of a sentence")
    taught = correction(BRAIN, ASKED, TAUGHT, answer["text"], answer["id"])
    expect(client.send_correction(taught), "the correction to be new")
    expect(not client.send_correction(taught), "the same correction to be known")
    expect(taught["id"] in {each["id"] for each in client.corrections(BRAIN)}, "it in the list")
    at_once = client.ask("vqa", [BRAIN], ASKED)
    expect(at_once["text"] == TAUGHT, f"the correction as the next answer, not {at_once['text']!r}")
    expect(client.next_study("hybrid"), "a next study")
    expect(Path(client.download(SLICE, str(folder))).is_file(), "the study that was downloaded")
    expect(client.adapters()["active"] is None, "the base model to answer")
    client.training_status()
    done("the extension's client connects, asks, shows evidence, corrects, downloads")


def training_is_published_and_answers(client: MONAILabelClient, folder: Path) -> None:
    """Train on the correction of the extension's client, and check the new adapter's answer."""
    started = time.monotonic()
    client.train_start("radfound", {"newest": 1})
    while (found := training(client))["state"] == "running":
        expect(time.monotonic() - started < TRAINING_S, f"a training of at most {TRAINING_S} s")
        time.sleep(1)
    expect(found["state"] == "published", f"a published adapter: {found}")
    expect(all(each["passed"] is not False for each in found["checks"]), "checks that passed")
    # The language model's own text: this kind of question is otherwise answered by recall, or by silence.
    after = ask(client, "vqa", BRAIN, {"question": ASKED, "model_only": True})
    expect(after["text"] == TAUGHT, f"what was taught, not {after['text']!r}")
    expect(after["model"]["adapter"] == found["adapter"], "the answer of the new adapter")
    done(f"a training is published as {found['adapter']} and answers, {found['seconds']:.0f} s")


def training_can_be_stopped(client: MONAILabelClient) -> None:
    """Start another training and stop it."""
    client.train_start("radfound", {})
    client.train_stop()
    client.train_status(check_if_running=True)
    done("a training can be stopped")


def training(client: MONAILabelClient) -> dict[str, Any]:
    """Return the state of the training."""
    with urlopen(f"{client.get_server_url()}/radfound/training", timeout=60) as reply:
        found: dict[str, Any] = json.load(reply)
    return found


def ask(client: MONAILabelClient, task: str, image: str, params: dict, **source: Any) -> dict:
    """Return an answer; without a map, this client returns the JSON as text."""
    _, answer = client.infer(f"radfound_{task}", image, params, **source)
    return json.loads(answer)


def refused(call: Callable[[], object], what: str) -> None:
    """Make an unsupported call, which must be refused with a 4xx."""
    try:
        call()
    except MONAILabelClientException as refusal:
        expect("Status: 4" in refusal.msg, f"{what} to be refused, not {refusal.msg}")
    else:
        raise SystemExit(f"expected {what} to be refused")


def correction(
    image: str, question: str, text: str, model_text: str = "", answer_id: str | None = None
) -> dict[str, Any]:
    """Return a correction of an answer."""
    return {
        "schema": "radfound.correction/1",
        "id": str(uuid.uuid4()),
        "answer_id": answer_id,
        "images": [image],
        "task": "vqa",
        "question": question,
        "model_text": model_text,
        "verdict": "edited",
        "text": text,
        "author": "acceptance",
    }


def picture(path: Path, shade: int = 0) -> Path:
    """Write a small grey ramp."""
    from PIL import Image

    Image.frombytes("L", (64, 64), bytes((x + shade) % 256 for x in range(64)) * 64).save(path)
    return path


def expect(found: object, what: str) -> None:
    """Exit with one line if `found` is false."""
    if not found:
        raise SystemExit(f"expected {what}")


def done(what: str) -> None:
    """Print that a step has passed."""
    print(f"  ok  {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
