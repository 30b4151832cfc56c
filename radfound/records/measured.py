"""What was measured of one model, as a small JSON file beside its weights or in a server's state."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from radfound.exceptions import CheckpointError, StorageError
from radfound.records.durable import replace_text

logger = logging.getLogger(__name__)

_Measured = TypeVar("_Measured")


@dataclass(frozen=True)
class MeasuredFile:
    """One kind of measurement: its file, and how to measure again.

    Parameters
    ----------
    name : str
        Of the file.
    schemas : tuple of str
        That are read; the first one is written.
    command : str
        That measures.
    """

    name: str
    schemas: tuple[str, ...]
    command: str

    def write(self, folder: Path, revision: str, content: Mapping[str, Any]) -> Path:
        """Write what was measured of a revision into a folder, which is made if missing; return the file's path.

        Raises
        ------
        StorageError
            If the folder cannot be written.
        """
        path = folder / self.name
        data = {"schema": self.schemas[0], "revision": revision, **content}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Not private: it tells of weights, which whoever serves them must be able to read, and of no patient.
            replace_text(path, json.dumps(data, indent=2) + "\n", private=False)
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be written ({error.strerror}); expected a writable folder, such as a copy of this one"
            ) from error
        return path

    def read(
        self, folder: Path, revision: str, parse: Callable[[dict[str, Any]], _Measured]
    ) -> _Measured | None:
        """Return what was measured of a revision; None, and a warning in the log, if it was measured of another.

        Parameters
        ----------
        folder : Path
            None is returned if it does not hold the file.
        revision : str
            Of the base weights.
        parse : callable
            Takes what `write` was given as `content`; may raise ValueError, KeyError, TypeError or AttributeError.

        Raises
        ------
        CheckpointError
            If the file is damaged, or of another version.
        """
        path = folder / self.name
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            schema, measured = data.pop("schema"), str(data.pop("revision"))
            if schema not in self.schemas:
                raise ValueError(f"schema is {schema!r}, expected {self.schemas[0]!r}")
            found = parse(data)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{self.name}: cannot be read ({error}); delete it, or measure again with `{self.command}`"
            ) from error
        if measured != revision:
            logger.warning(
                "%s belongs to other weights (%s, but %s are loaded) and is not used; measure again with `%s`",
                self.name, measured, revision, self.command,
            )  # fmt: skip
            return None
        return found
