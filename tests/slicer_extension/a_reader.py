"""What a reader does in Slicer, from connecting to going back to the base model.

    python -m tests.slicer_extension.a_reader ADDRESS VOLUME OUTBOX TRAINING_AS_JSON

A program, so that Slicer's Pythons can run it with nothing installed; it prints what came of each
step as JSON. VOLUME is a .nii file; OUTBOX a folder.
"""

import hashlib
import json
import sys
import threading
import time
from dataclasses import asdict

from RadFoundLib.net.cancellation import Cancellation
from RadFoundLib.net.client import Client, ClientError
from RadFoundLib.session.outbox import Outbox, new_correction

QUESTION = "Which side is shown?"
TRUTH = "left"


def asks(client, image):
    heard = []
    answer = client.ask("vqa", [image], QUESTION, on_token=heard.append)
    return {"answer": answer, "heard": heard}


def stops(client, image):
    """Ask for a long report and stop at its first word."""
    cancel, heard = Cancellation(), []

    def on_token(text):
        heard.append(text)
        cancel.set()

    began = time.monotonic()
    try:
        client.ask("report", [image], max_new_tokens=512, on_token=on_token, cancel=cancel)
    except ClientError as error:
        return {"kind": error.kind, "heard": heard, "seconds": time.monotonic() - began}
    return {"kind": "none"}


def stops_before_the_first_byte(client, image):
    cancel = Cancellation()
    threading.Timer(0.005, cancel.set).start()
    try:
        client.ask("report", [image], max_new_tokens=512, cancel=cancel)
    except ClientError as error:
        return error.kind
    return "none"


def trains(client, settings):
    client.train(settings)
    states, steps = [], []
    while True:
        status = client.training_status()
        states.append(status.state)
        steps.append(status.step)
        if status.is_over:
            return {"states": states, "steps": steps, "last": asdict(status)}
        time.sleep(0.2)


def main(address, volume, folder, settings):
    client, outbox, found = Client(address), Outbox(folder), {}
    found["python"] = "{}.{}".format(*sys.version_info)
    found["info"] = asdict(client.info())

    with open(volume, "rb") as file:
        content_hash = hashlib.sha256(file.read() + found["python"].encode()).hexdigest()
    found["had"] = client.has(content_hash)
    seen = []
    with open(volume, "rb") as file:
        image = client.upload(
            file, "volume.nii", content_hash, lambda done, total: seen.append([done, total])
        )
        found["image"], found["progress"] = image, list(seen)
        again = client.upload(file, "volume.nii", content_hash, lambda *_: seen.append("!"))
    found["again"], found["has"] = again, client.has(content_hash)

    found["before"] = asks(client, image)
    found["stopped"] = stops(client, image)
    found["stopped early"] = stops_before_the_first_byte(client, image)
    region = {"slice_mm": {"point": [0, 0, 0], "normal": [0, 0, 1]}}
    found["slice"] = client.ask(
        "vqa", [image], "And here?", [{"question": "a", "answer": "b"}], region
    )
    found["caption"] = client.ask("caption", [image])
    evidence = client.evidence(found["before"]["answer"], "left")
    found["is NRRD"] = evidence.startswith(b"NRRD")

    correction = new_correction(found["before"]["answer"], "edited", "a reader", TRUTH)
    outbox.add(correction, client.address)
    client.send_correction(correction)  # as if the receipt had been lost
    found["flushed"] = list(outbox.flush(client).sent) == [correction["id"]]
    found["waiting"] = len(outbox.waiting())
    found["corrections"] = [row["id"] for row in client.corrections(image)]
    found["correction"] = correction["id"]

    found["training"] = trains(client, settings)
    found["adapters"] = client.adapters()
    found["after"] = asks(client, image)
    found["base"] = client.activate(None)["active"]
    found["on base"] = asks(client, image)
    found["rolled back"] = client.rollback()["active"]
    client.activate(None)
    return found


if __name__ == "__main__":
    address, volume, folder, settings = sys.argv[1:]
    json.dump(main(address, volume, folder, json.loads(settings)), sys.stdout)
