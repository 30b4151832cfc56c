"""Upload a volume as a streamed multipart body."""

import hashlib
import io
import os
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Callable, Optional, Union

from ..translation import _
from .cancellation import Cancellation
from .errors import ClientError

Source = Union[str, bytes, BinaryIO]
Progress = Callable[[int, int], None]

_PIECE = 1 << 18
_GZIP = 31  # zlib's name for "with a gzip header"
_FAST = 1


def content_hash_of(source: Source, cancel: Optional[Cancellation] = None) -> str:
    """Return SHA-256 in hex over all bytes of a source; ClientError if it cannot be read."""
    digest = hashlib.sha256()
    with opened(source) as (file, _size):
        for piece in _pieces(file):
            if cancel is not None and cancel.is_set:
                raise ClientError(_("Stopped."), "cancelled")
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def opened(source: Source) -> Iterator[tuple[BinaryIO, int]]:
    """Yield a source as a file at its beginning, and its size in bytes."""
    with _readable():
        if isinstance(source, str):
            file: BinaryIO = open(source, "rb")
        elif isinstance(source, bytes):
            file = io.BytesIO(source)
        else:
            file = source
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
    try:
        yield file, size
    finally:
        if isinstance(source, str):
            file.close()


class UploadBody:
    """One file as multipart/form-data, read while it is sent.

    Parameters
    ----------
    file : binary file, at its beginning
    size : int
        Size of the file in bytes.
    name : str
        File name for the server; ASCII.
    is_packed : bool
        Whether to gzip the bytes while sending; the length is then unknown.
    progress : callable(done, total), optional
        Bytes read.
    """

    def __init__(
        self,
        file: BinaryIO,
        size: int,
        name: str,
        is_packed: bool,
        progress: Optional[Progress] = None,
    ):
        boundary = uuid.uuid4().hex
        self._file = file
        self._size = size
        self._is_packed = is_packed
        self._progress = progress
        self._head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode("ascii")
        self._tail = f"\r\n--{boundary}--\r\n".encode("ascii")
        self.headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        if not is_packed:
            length = len(self._head) + size + len(self._tail)
            self.headers["Content-Length"] = str(length)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        yield from self._packed() if self._is_packed else self._counted()
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

    def _packed(self) -> Iterator[bytes]:
        packer = zlib.compressobj(_FAST, zlib.DEFLATED, _GZIP)
        for piece in self._counted():
            packed = packer.compress(piece)
            if packed:  # an empty chunk would end the body
                yield packed
        yield packer.flush()


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
