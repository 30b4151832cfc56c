"""Tensors that are kept on disk between runs, so that nothing is computed twice."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from radfound.records.durable import make_directory, replacing

logger = logging.getLogger(__name__)

_END = ".safetensors"


class Kept:
    """A folder of tensors by key, one file each; what was used longest ago goes first.

    A file is whole or absent, even if the process is killed. A damaged one is removed and counts as absent.

    Parameters
    ----------
    folder : Path or None
        None keeps nothing.
    what : str
        Name of the content, for the log.
    max_bytes : int
        The folder holds no more, except for one file.
    """

    def __init__(self, folder: Path | None, what: str, max_bytes: int):
        self._folder, self._what, self._max_bytes = folder, what, max_bytes
        self._used: set[str] = set()

    def has(self, key: str) -> bool:
        """Whether something is kept under a key, damaged or not."""
        return self._folder is not None and (self._folder / (key + _END)).is_file()

    def get(self, key: str) -> dict[str, torch.Tensor] | None:
        """Return what is kept under a key of `key_of`, or None."""
        if self._folder is None:
            return None
        self._used.add(key)
        path = self._folder / (key + _END)
        try:
            found = load_file(path)
            os.utime(path)  # used just now
            return found
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError):
            self.drop(key)
            return None

    def put(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep tensors if that is possible; a full disk costs time at the next run, nothing else."""
        if self._folder is None:
            return
        self._used.add(key)
        try:
            make_directory(self._folder)
            with replacing(self._folder / (key + _END)) as file:
                file.write(save({name: each.contiguous().cpu() for name, each in tensors.items()}))
            self._trim(self._folder)
        except (OSError, SafetensorError) as error:
            logger.warning("%s: not kept (%s)", self._what, error)

    def drop(self, key: str) -> None:
        """Remove a file whose content is not what was expected, and log this."""
        if self._folder is not None:
            logger.warning("%s: %s is damaged, so it is made again", self._what, key + _END)
            (self._folder / (key + _END)).unlink(missing_ok=True)

    def forget_unused(self) -> None:
        """Remove what was neither read nor written since this object was made."""
        self.forget_all(but=self._used)

    def forget_all(self, but: Collection[str] = ()) -> None:
        """Remove everything but some keys."""
        for file in self._folder.glob(f"*{_END}") if self._folder is not None else ():
            if file.name.removesuffix(_END) not in but:
                file.unlink(missing_ok=True)

    def _trim(self, folder: Path) -> None:
        files = sorted(folder.glob(f"*{_END}"), key=lambda file: file.stat().st_mtime_ns)
        total = sum(file.stat().st_size for file in files)
        for file in files[:-1]:
            if total <= self._max_bytes:
                return
            total -= file.stat().st_size
            file.unlink(missing_ok=True)


def key_of(*parts: object) -> str:
    """Return the key of some JSON values: 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def digest_of(tensors: Sequence[torch.Tensor]) -> str:
    """Return the digest of tensors: 32 hexadecimal digits over their shapes, types and content."""
    sha = hashlib.sha256()
    for each in tensors:
        sha.update(f"{tuple(each.shape)} {each.dtype}".encode())
        sha.update(each.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:32]
