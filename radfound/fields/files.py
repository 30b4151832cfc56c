"""`fields.json` and `fields.safetensors`: the classifiers of fields and findings beside a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from radfound.exceptions import CheckpointError
from radfound.fields.heads import FieldHead, FindingHead, Head
from radfound.fields.nearness import Kinds, Nearness, Subspace

SCHEMA = "radfound.fields/3"
JSON_FILE, WEIGHTS_FILE = "fields.json", "fields.safetensors"
_SPACES = ("inner", "pooled")
_SUBSPACE = ("mean", "scale", "vectors", "spread")

_Tensors = dict[str, np.ndarray]


def read_heads(folder: Path) -> tuple[Nearness, dict[str, FieldHead], tuple[FindingHead, ...]]:
    """Read the test of distance and the heads of fields and findings.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged.
    """
    try:
        data = json.loads((folder / JSON_FILE).read_text(encoding="utf-8"))
        halves = load_file(folder / WEIGHTS_FILE)
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema is {data['schema']!r}, expected {SCHEMA!r}")
        tensors = {name: array.astype(np.float32) for name, array in halves.items()}
        fields = {
            name: FieldHead(
                _head(f"field.{name}", row, tensors),
                tuple(row["parts"]),
                row["sure"],
                row["measured"],
            )
            for name, row in data["fields"].items()
        }
        findings = tuple(
            FindingHead(
                row["finding"],
                row["set"],
                _head(f"finding.{name}", row, tensors),
                tuple(row["parts"]),
                row["limit"],
                row["measured"],
            )
            for name, row in data["findings"].items()
        )
        return _nearness(data["nearness"], tensors), fields, findings
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder.name}: the field heads cannot be loaded ({error}); reinstall radfound, or write them again "
            "with `python -m training.stages.fields`"
        ) from error


def write_heads(
    folder: Path,
    nearness: Nearness,
    fields: Mapping[str, FieldHead],
    findings: tuple[FindingHead, ...],
) -> None:
    """Write both files, weights in float16."""
    tensors = _tensors_of(nearness)
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "nearness": {
            "kinds": list(nearness.kinds.names),
            "names": list(nearness.names),
            "set_limits": [round(float(limit), 4) for limit in nearness.set_limits],
            "typical": np.round(nearness.typical, 4).tolist(),
            "limits": np.round(nearness.limits, 4).tolist(),
        },
        "fields": {},
        "findings": {},
    }
    for name, each in fields.items():
        data["fields"][name] = _row(each) | {"sure": each.sure, "measured": dict(each.measured)}
        tensors |= _arrays(f"field.{name}", each.head)
    for finding in findings:
        name = f"{finding.set}/{finding.finding}"
        data["findings"][name] = _row(finding) | {
            "finding": finding.finding,
            "set": finding.set,
            "limit": finding.limit,
            "measured": dict(finding.measured),
        }
        tensors |= _arrays(f"finding.{name}", finding.head)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: np.ascontiguousarray(array, np.float16) for name, array in tensors.items()},
        folder / WEIGHTS_FILE,
    )
    (folder / JSON_FILE).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _nearness(row: Mapping[str, Any], tensors: _Tensors) -> Nearness:
    inner, pooled = (
        Subspace(*(tensors[f"nearness.{space}.{name}"] for name in _SUBSPACE)) for space in _SPACES
    )
    kinds = Kinds(
        tuple(row["kinds"]), tensors["nearness.kinds.turn"], tensors["nearness.kinds.centres"]
    )
    return Nearness(
        inner,
        pooled,
        kinds,
        tensors["nearness.references"],
        tensors["nearness.sets"].astype(int),
        tuple(row["names"]),
        np.array(row["set_limits"]),
        np.array(row["typical"]),
        np.array(row["limits"]),
    )


def _tensors_of(nearness: Nearness) -> _Tensors:
    tensors = {
        "nearness.references": nearness.references,
        "nearness.sets": nearness.sets,
        "nearness.kinds.turn": nearness.kinds.turn,
        "nearness.kinds.centres": nearness.kinds.centres,
    }
    for space in _SPACES:
        for name in _SUBSPACE:
            tensors[f"nearness.{space}.{name}"] = getattr(getattr(nearness, space), name)
    return tensors


def _head(name: str, row: Mapping[str, Any], tensors: _Tensors) -> Head:
    return Head(
        tuple(row["classes"]),
        tensors[f"{name}.weight"],
        tensors[f"{name}.bias"],
        float(row["temperature"]),
    )


def _row(each: FieldHead | FindingHead) -> dict[str, Any]:
    return {
        "parts": list(each.parts),
        "classes": list(each.head.classes),
        "temperature": round(each.head.temperature, 4),
    }


def _arrays(name: str, head: Head) -> _Tensors:
    return {f"{name}.weight": head.weight, f"{name}.bias": head.bias}
