"""A server whose every byte a test decides; plain sockets, so that it can also misbehave.

Runs on Python 3.9 and needs nothing, since the tests of the client run on Slicer's Pythons, too.
"""

import json
import socket
import struct
import threading
from collections import namedtuple
from contextlib import suppress

from RadFoundLib.net import protocol

Request = namedtuple("Request", "method target headers body")

ANSWER = {
    **protocol.ANSWER,
    "images": ["volume-1"],
    "question": "What is shown?",
    "text": "A stub.",
}


class Stub:
    """Listens on a free port of this machine; every connection goes to `behave(request, line)`.

    `line` is the connected socket; it is closed when `behave` returns. `requests` holds what came;
    `hung_up` is set once a `behave` has returned that the client has gone.
    """

    def __init__(self, behave, reads_body=True, wrap=None):
        self.requests = []
        self.hung_up = threading.Event()
        self._behave = behave
        self._reads_body = reads_body
        self._wrap = wrap
        self._lines = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for line in [self._listener, *self._lines]:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                self._lines.append(line)
                threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line):
        with suppress(OSError):
            if self._wrap is not None:
                line = self._wrap(line)
            with line.makefile("rb") as file:
                request = read_request(file, self._reads_body)
            self.requests.append(request)
            if self._behave(request, line):
                self.hung_up.set()
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
        line.close()


def read_request(file, reads_body):
    method, target, _ = file.readline().decode("latin-1").split(" ", 2)
    headers = {}
    while True:
        text = file.readline().decode("latin-1").strip()
        if not text:
            break
        key, _, value = text.partition(":")
        headers[key.lower()] = value.strip()
    body = b""
    if reads_body and headers.get("transfer-encoding") == "chunked":
        while True:
            size = int(file.readline(), 16)
            body += file.read(size)
            file.readline()
            if not size:
                break
    elif reads_body:
        body = file.read(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body)


def head(status=200, kind="application/json", **headers):
    lines = [f"HTTP/1.1 {status} Because", f"Content-Type: {kind}"]
    lines += ["{}: {}".format(key.replace("_", "-"), value) for key, value in headers.items()]
    return ("\r\n".join([*lines, "", ""])).encode("latin-1")


def whole(content, status=200, kind="application/json", **headers):
    """A reply of known length."""
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    return head(status, kind, Content_Length=len(content), **headers) + content


def says(*pieces):
    """A behaviour: send these bytes and hang up."""

    def behave(request, line):
        for piece in pieces:
            line.sendall(piece)

    return behave


def event(name, data):
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def chunk(content):
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def streams(*events, ends=True):
    """A behaviour: server-sent events, each in a chunk of its own."""
    pieces = [head(kind="text/event-stream", Transfer_Encoding="chunked")]
    pieces += [chunk(each) for each in events]
    return says(*pieces, *([chunk(b"")] if ends else []))


def resets(request, line):
    """Drop the connection as a machine that loses its power does."""
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.close()


def listens(request, line):
    """Say nothing, and notice when the client goes."""
    with suppress(OSError):
        while line.recv(65536):
            pass
    return True


def says_and_listens(*pieces):
    """A behaviour: send these bytes, and wait for the client to go."""

    def behave(request, line):
        says(*pieces)(request, line)
        return listens(request, line)

    return behave
