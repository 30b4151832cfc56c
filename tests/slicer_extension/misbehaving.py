"""What can go wrong with a server, and what the client makes of it.

A table for test_client.py; as a program it tries every row and prints the outcomes as JSON, so
that Slicer's Pythons, which have no pytest, can try them as well.
"""

import json
import sys
import threading
import time
from collections import namedtuple
from contextlib import suppress

from RadFoundLib.net.cancellation import Cancellation
from RadFoundLib.net.client import Client
from RadFoundLib.net.errors import ClientError
from RadFoundLib.net.protocol import TRAINING_STATUS as STATUS

from .stub import (
    ANSWER,
    Stub,
    chunk,
    event,
    head,
    listens,
    resets,
    says,
    says_and_listens,
    streams,
    whole,
)

# name: of the row; behave: of the stub; call: what the client does; kind: of the error that comes
# of it; words: in its message
Row = namedtuple("Row", "name behave call kind words")


def info(client, heard, cancel):
    client.info(cancel)


def asks(client, heard, cancel):
    client.ask("vqa", ["volume-1"], "What is shown?", on_token=heard.append, cancel=cancel)


def uploads(client, heard, cancel):
    client.upload(b"\0" * (8 << 20), "volume.nii", "ab" * 32, cancel=cancel)


def corrects(client, heard, cancel):
    client.send_correction({"id": "c-1"}, cancel)


def adapters(client, heard, cancel):
    client.adapters(cancel)


def status(client, heard, cancel):
    client.training_status(cancel)


def drips(request, line):
    while True:
        line.sendall(b"x")
        time.sleep(0.02)


def is_silent(request, line):
    time.sleep(60)


def has_nothing(request, line):
    """Know of no image, and take none."""
    if request.method == "HEAD":
        line.sendall(whole(b"", 404))
    else:
        detail = {"code": "study_too_large", "message": "file: more than 8 MB; send a part"}
        line.sendall(whole({"detail": detail}, 413))


def dies_during_an_upload(request, line):
    if request.method == "HEAD":
        line.sendall(whole(b"", 404))
    else:
        line.recv(65536)
        resets(request, line)


def names_another_image(request, line):
    line.sendall(whole(b"", 404) if request.method == "HEAD" else whole({"image": "other"}))


def refuses(status, said):
    return says(whole({"detail": said}, status))


TOKEN = event("token", {"text": "A "})
HEALTH = {"status": "ok", "version": "1", "model": {"name": "radfound-tiny"}, "corrections": 0}

ROWS = [
    # Something else answers
    Row("garbage", says(b"\x00\xff\x13 garbage\r\n\r\n"), info, "protocol", "not a RadFound"),
    Row("garbage-asked", says(b"\xde\xad\xbe\xef" * 999), asks, "protocol", "not a RadFound"),
    Row("a web page", says(whole(b"<html>", kind="text/html")), info, "protocol", "not a RadFound"),
    Row("a page asked", says(whole(b"<html>", kind="text/html")), asks, "protocol", "RadFound"),
    Row("no object", says(whole([1, 2])), info, "protocol", "not a RadFound"),
    Row("deep JSON", says(whole(b"[" * 99_999)), info, "protocol", "not a RadFound"),
    Row("no UTF-8", says(whole(b'{"a": "\xff"}')), info, "protocol", "not a RadFound"),
    Row("a bare 404", refuses(404, "Not Found"), info, "protocol", "not a RadFound"),
    Row("half an info", says(whole(HEALTH)), info, "protocol", "not a RadFound"),
    Row("no adapters", says(whole({"active": None})), adapters, "protocol", "not a RadFound"),
    Row("odd adapters", says(whole({"active": None, "adapters": [3]})), adapters, "protocol", ""),
    Row("odd training", says(whole([])), status, "protocol", "not a RadFound"),
    Row("odd state", says(whole({**STATUS, "state": "?"})), status, "protocol", "not a RadFound"),
    Row("odd check", says(whole({**STATUS, "checks": [3]})), status, "protocol", "not a RadFound"),
    Row("odd receipt", says(whole({"id": "c-2", "recorded": True})), corrects, "protocol", ""),
    Row("other image", names_another_image, uploads, "protocol", "not a RadFound"),
    # Half of it
    Row("half a body", says(head(Content_Length=99), b'{"st'), info, "protocol", "broke"),
    Row("half a head", says(b"HTTP/1.1 200 OK\r\nContent-Le"), info, "protocol", ""),
    Row("half a stream", streams(TOKEN, ends=False), asks, "protocol", "broke"),
    Row("half an event", streams(TOKEN[:-3], ends=False), asks, "protocol", "broke"),
    Row("no answer at the end", streams(TOKEN), asks, "protocol", "broke"),
    Row("hangs up", says(), info, "unreachable", "hung up"),
    Row("hangs up asked", says(), asks, "unreachable", "hung up"),
    Row("is reset", resets, corrects, "unreachable", "hung up"),
    Row("dies during an upload", dies_during_an_upload, uploads, "unreachable", "hung up"),
    # Odd streams
    Row("no events", streams(b"\xff\xfe\n\n"), asks, "protocol", "not a RadFound"),
    Row("odd JSON", streams(TOKEN, b"event: answer\ndata: {\n\n"), asks, "protocol", "RadFound"),
    Row("odd token", streams(event("token", {"text": 3})), asks, "protocol", "not a RadFound"),
    Row("odd answer", streams(event("answer", {"text": "A"})), asks, "protocol", "not a RadFound"),
    Row(
        "odd confidence",
        streams(event("answer", {**ANSWER, "confidence": "high"})),
        asks,
        "protocol",
        "not a RadFound",
    ),
    Row("odd error", streams(event("error", "?")), asks, "protocol", "not a RadFound"),
    # Errors that the server names
    Row(
        "an error of the model",
        streams(TOKEN, event("error", {"code": "internal_error", "message": "its log says more"})),
        asks,
        "server",
        "log says more",
    ),
    Row(
        "an error of the study",
        streams(event("error", {"code": "study_unreadable", "message": "expected DICOM"})),
        asks,
        "request",
        "expected DICOM",
    ),
    Row("500", says(whole(b"<html>oops", 500, "text/html")), asks, "server", "500"),
    Row("502", refuses(502, "Bad Gateway"), info, "server", "Bad Gateway"),
    Row("500 of a correction", says(whole(b"", 500)), corrects, "server", "500"),
    Row("401", refuses(401, "Not authenticated"), info, "refused", "asks for a token"),
    Row("401 of an upload", refuses(401, "no"), uploads, "refused", "asks for a token"),
    Row("403", refuses(403, 'Role "admin" is required'), adapters, "refused", '"admin"'),
    Row("413 of an upload", has_nothing, uploads, "request", "more than 8 MB"),
    Row(
        "400",
        refuses(400, {"code": "bad_request", "message": "region: found nothing"}),
        asks,
        "request",
        "region: found nothing",
    ),
    # Redirects
    *(
        Row(
            f"{code} {call.__name__}",
            says(whole(b"", code, Location="https://elsewhere.example.org/x?token=y")),
            call,
            "protocol",
            "https://elsewhere.example.org/x;",
        )
        for code, call in ((301, info), (307, asks), (308, uploads), (302, corrects))
    ),
    # No end
    Row("silence", is_silent, info, "timeout", "not answered"),
    Row("silence asked", is_silent, asks, "timeout", "not answered"),
    Row("drips", drips, info, "timeout", "not answered"),
]


STREAM = head(kind="text/event-stream", Transfer_Encoding="chunked")


def keeps_the_line_alive(request, line):
    line.sendall(STREAM)
    with suppress(OSError):
        while True:
            line.sendall(chunk(b": still working\n\n"))
            time.sleep(0.02)
    return True


def reads_no_further(request, line):
    """Know of no image, and let an upload wait for a while."""
    if request.method == "HEAD":
        line.sendall(whole(b"", 404))
        return False
    time.sleep(0.4)
    return listens(request, line)


# What a reader may stop: each is waiting for something else.
WAITS = [
    Row("for the first byte", listens, info, "cancelled", "Stopped"),
    Row("for the first byte of an answer", listens, asks, "cancelled", "Stopped"),
    Row("for a receipt", listens, corrects, "cancelled", "Stopped"),
    Row("for the head", says_and_listens(b"HTTP/1.1 200 OK\r\n"), info, "cancelled", ""),
    Row("for the body", says_and_listens(head(Content_Length=9), b"{"), info, "cancelled", ""),
    Row("for the first token", says_and_listens(STREAM), asks, "cancelled", "Stopped"),
    Row("for the next token", says_and_listens(STREAM, chunk(TOKEN)), asks, "cancelled", ""),
    Row("for a token kept waiting", keeps_the_line_alive, asks, "cancelled", "Stopped"),
    Row("for an upload", reads_no_further, uploads, "cancelled", "Stopped"),
]
STOP_AFTER_S = 0.2
PATIENCE_S = 60  # far beyond what anything here should take, on however busy a machine


def outcome(row):
    """Return what comes of one row.

    Kind and message of the error, the tokens that were heard, how long it took, and whether the
    server saw the client go.
    """
    heard, cancel = [], Cancellation()
    is_wait = row in WAITS
    limit_s = 0.5 if row.kind == "timeout" else PATIENCE_S
    began = time.monotonic()
    if is_wait:
        threading.Timer(STOP_AFTER_S, cancel.set).start()
    with Stub(row.behave, reads_body=row.call is not uploads) as stub:
        client = Client(stub.address, timeout_s=limit_s, answer_timeout_s=limit_s)
        try:
            row.call(client, heard, cancel)
        except ClientError as error:
            kind, message = error.kind, error.message
        else:
            kind, message = "none", ""
        seconds = time.monotonic() - began
        hung_up = is_wait and stub.hung_up.wait(5)
    return {"kind": kind, "message": message, "heard": heard, "seconds": seconds, "left": hung_up}


if __name__ == "__main__":
    json.dump({row.name: outcome(row) for row in ROWS + WAITS}, sys.stdout)
