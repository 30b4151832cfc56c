"""Upload a volume as a streamed multipart body."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Callable, Optional

from ..translation import _
from .errors import ClientError

Progress = Callable[[int, int], None]

_PIECE = 1 << 18


def size_of(file: BinaryIO) -> int:
    """Return the size of an open file in bytes, and go to its beginning."""
    with _readable():
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
    return size


class UploadBody:
    """One file as multipart/form-data, read while it is sent.

    Parameters
    ----------
    file : binary file, at its beginning
    size : int
        Size of the file in bytes.
    name : str
        File name for the server; ASCII.
    progress : callable(done, total), optional
        Bytes read.
    """

    def __init__(
        self,
        file: BinaryIO,
        size: int,
        name: str,
        progress: Optional[Progress] = None,
    ):
        boundary = uuid.uuid4().hex
        self._file = file
        self._size = size
        self._progress = progress
        self._head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode("ascii")
        self._tail = f"\r\n--{boundary}--\r\n".encode("ascii")
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._head) + size + len(self._tail)),
        }

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        yield from self._counted()
        yield self._tail

    def _counted(self) -> Iterator[bytes]:
        done = 0
        for piece in _pieces(self._file):
            yield piece
            done += len(piece)
            if self._progress is not None:
                self._progress(done, self._size)
        if done != self._size:
            raise ClientError(
                _("The volume's file changed while it was sent. Try again."), "request"
            )


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while True:
        with _readable():
            piece = file.read(_PIECE)
        if not piece:
            return
        yield piece


@contextmanager
def _readable() -> Iterator[None]:
    """Raise errors of the volume's file as ClientError, apart from errors of the server."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ClientError(
            _("The volume's file cannot be read ({why}).").format(why=error), "request"
        ) from error
