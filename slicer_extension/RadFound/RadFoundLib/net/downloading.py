"""Save a downloaded study on disk."""

import os
import tempfile
import zipfile
from typing import BinaryIO, Callable, Optional

from ..translation import _
from .address import Address
from .errors import ClientError
from .transport import Reply, not_radfound


def saved(
    reply: Reply,
    folder: str,
    suffix: str,
    progress: Optional[Callable[[int, int], None]] = None,
) -> str:
    """Write a reply's body into a new file; remove the file if the download fails."""
    total = reply.length or 0
    try:
        number, path = tempfile.mkstemp(suffix=suffix, prefix="radfound-", dir=folder)
    except OSError as error:
        raise _unsaved(error) from error
    try:
        with open(number, "wb") as file:
            done = 0
            for piece in reply.pieces():
                _write(file, piece)
                done += len(piece)
                if progress is not None:
                    progress(done, total)
    except BaseException:
        os.unlink(path)
        raise
    return path


def unpacked(path: str, address: Address) -> str:
    """Unpack a zip of DICOM files into a new folder beside it, and return the first file's path.

    The zip is removed. Paths that lead out of the folder are redirected into it.
    """
    try:
        folder = tempfile.mkdtemp(prefix="radfound-", dir=os.path.dirname(path))
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if not name.endswith("/"))
            files = [archive.extract(name, folder) for name in names]
    except OSError as error:
        raise _unsaved(error) from error
    except (zipfile.BadZipFile, RuntimeError, ValueError) as error:  # damaged, or with a password
        raise not_radfound(address) from error
    finally:
        os.unlink(path)
    if not files:
        raise not_radfound(address)
    return files[0]


def _write(file: BinaryIO, piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:
        raise _unsaved(error) from error


def _unsaved(error: OSError) -> ClientError:
    message = _("The study cannot be saved here ({why}).").format(why=error.strerror)
    return ClientError(message, "request")
