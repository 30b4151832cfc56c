"""Logging without requests, names and progress bars."""

from __future__ import annotations

import logging
import traceback
import warnings
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from radfound.records.durable import PRIVATE_FILE, make_directory, open_private

logger = logging.getLogger(__name__)

_MAX_BYTES, _OLD_FILES = 10 << 20, 10
_FORMAT = "[%(asctime)s] [%(threadName)s] [%(levelname)s] (%(name)s:%(lineno)d) - %(message)s"
_TASKS = ("task_train", "task_scoring", "task_batch_infer")


def quieten_monailabel() -> None:
    """Keep MONAI Label from logging requests and results, which hold questions and answers."""
    for name in ("monailabel", "__main__"):  # the latter in a training process
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it quotes values of headers
    warnings.filterwarnings("ignore", module="pydicom")


def without_progress_bars() -> None:
    """Keep transformers' bars out of the log, where each redraw is a line."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def keep_log(path: Path) -> None:
    """Log to a file of this server, without messages of exceptions, which may name a study.

    MONAI Label's log is in the app's folder, where several servers would write to and rotate one
    file. If this process has no such log, nothing changes.

    Parameters
    ----------
    path : Path
        Created with its folder, for this user only.
    """
    root = logging.getLogger()
    if not _log_files(root):
        return
    try:
        make_directory(path.parent)
        own = _PrivateLog(path, maxBytes=_MAX_BYTES, backupCount=_OLD_FILES, encoding="utf-8")
    except OSError as error:
        logger.warning("the log stays in the app's folder (%s)", error.strerror)
        return
    own.setFormatter(_WithoutMessages(_FORMAT))
    for owner in (root, *map(logging.getLogger, _TASKS)):
        for handler in _log_files(owner):
            owner.removeHandler(handler)
            handler.close()
            Path(handler.baseFilename).chmod(PRIVATE_FILE)
    root.addHandler(own)
    for output in {*root.handlers, *logging.getLogger("uvicorn").handlers} - {own}:
        output.setFormatter(_WithoutMessages(_FORMAT))


def log_file() -> Path | None:
    """Return the path of this server's log; None if the server logs to no file."""
    return next((Path(file.baseFilename) for file in _log_files(logging.getLogger())), None)


def _log_files(owner: logging.Logger) -> list[RotatingFileHandler]:
    return [handler for handler in owner.handlers if isinstance(handler, RotatingFileHandler)]


class _PrivateLog(RotatingFileHandler):
    """A log that no other user can read."""

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=open_private)


class _WithoutMessages(logging.Formatter):
    """Formats exceptions as type and traceback, without the message."""

    def formatException(self, ei: Any) -> str:  # noqa: N802
        error, parts = ei[1], []
        while error is not None:
            frames = "".join(traceback.format_tb(error.__traceback__))
            parts.append(f"{frames}{type(error).__qualname__}")
            error = error.__cause__ or error.__context__
        return "\ncaused by:\n".join(parts)
