"""`manifest.json` beside a checkpoint: versions, settings, hash of the data, metrics and files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from radfound.correction import utc_now
from radfound.datasets import Example
from radfound.exceptions import TrainingError
from radfound.records.durable import make_directory, replace_text
from training.loop.processes import is_first_process

SCHEMA = "radfound.training/1"
_PACKAGES = ("radfound", "torch", "transformers", "accelerate", "peft", "numpy")


def write_manifest(
    out: Path,
    *,
    stage: str,
    config: Any,
    data_hash: str,
    metrics: Mapping[str, float],
    files: Sequence[str] = (),
) -> Path:
    """Write `manifest.json` into `out`; only the first process writes.

    Parameters
    ----------
    out : Path
    stage : str
    config : dataclass
        Of paths only the last part is kept, for privacy.
    data_hash : str
        As `hash_examples` returns it.
    metrics : mapping
    files : sequence of str
        Names of the stage's files in `out`; their sizes and SHA-256 are recorded.

    Returns
    -------
    Path

    Raises
    ------
    TrainingError
        If one of the files is missing.
    """
    path = out / "manifest.json"
    if not is_first_process():
        return path
    make_directory(out)
    manifest = {
        "schema": SCHEMA,
        "stage": stage,
        "created": utc_now(),
        "versions": _versions(),
        "device": _device(),
        "config": _plain(config),
        "data_hash": data_hash,
        "metrics": _plain(dict(metrics)),
        "files": {name: _file(out / name) for name in files},
    }
    replace_text(path, json.dumps(manifest, indent=2) + "\n")
    return path


def hash_examples(examples: Iterable[Example]) -> str:
    """Return the SHA-256 of the examples and of the names and sizes of their files.

    The order of the examples counts, because it determines each batch; the folder does not.
    """
    found = hashlib.sha256()
    sizes: dict[Path, int] = {}
    for example in examples:
        for path in example.files:
            if path not in sizes:
                sizes[path] = _size(path)
        known = dataclasses.asdict(example) | {
            "files": [(path.name, sizes[path]) for path in example.files]
        }
        found.update(json.dumps(known, sort_keys=True, default=str).encode())
    return found.hexdigest()


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
    return path.stat().st_size if path.exists() else -1


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _plain(value: Any) -> Any:
    """Return settings and numbers as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return value.name
    if isinstance(value, float) and not torch.isfinite(torch.tensor(value)):
        return None  # JSON has no NaN or infinity
    return value


def _file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise TrainingError(f"{path}: not found, but the manifest is to name it; write it before")
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return {"bytes": path.stat().st_size, "sha256": found.hexdigest()}
