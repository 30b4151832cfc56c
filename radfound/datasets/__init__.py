"""Loaders of public radiology data sets, in their published layouts, as `Example` objects.

`open_dataset` loads a data set by name. Nothing is downloaded, and this package holds no data.
`docs/data.md` describes layouts and licences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from radfound.datasets.captions import read_roco
from radfound.datasets.example import Example, Turn
from radfound.datasets.kit import Kit, read_kit, read_kit_vqa_rad
from radfound.datasets.medpix import read_medpix
from radfound.datasets.overlap import Overlap, overlaps
from radfound.datasets.own import read_jsonl
from radfound.datasets.questions import read_slake, read_vqa_med_2019, read_vqa_rad
from radfound.datasets.reports import read_ct_rate, read_mimic_cxr, read_openi, read_r2gen
from radfound.exceptions import DatasetError

__all__ = [
    "READERS",
    "Example",
    "Kit",
    "Overlap",
    "Turn",
    "open_dataset",
    "overlaps",
    "read_ct_rate",
    "read_jsonl",
    "read_medpix",
    "read_mimic_cxr",
    "read_openi",
    "read_r2gen",
    "read_roco",
    "read_slake",
    "read_vqa_med_2019",
    "read_vqa_rad",
]

READERS: dict[str, Callable[[Path, str], Iterator[Example]]] = {
    "vqa-rad": read_vqa_rad,
    "slake": read_slake,
    "vqa-med-2019": read_vqa_med_2019,
    "medpix": read_medpix,
    "roco": read_roco,
    "openi": read_openi,
    "r2gen": read_r2gen,
    "mimic-cxr": read_mimic_cxr,
    "ct-rate": read_ct_rate,
    "jsonl": read_jsonl,
    "kit": read_kit,
    "kit-vqa-rad": read_kit_vqa_rad,
}
"""Loaders by name of the layout; each takes the set's folder (or file) and a split."""


def open_dataset(
    name_or_path: str | Path, root: str | Path | None = None, split: str = "train"
) -> Iterator[Example]:
    """Load a data set by the name of its layout, or a JSONL file of your own by its path.

    Parameters
    ----------
    name_or_path : str or path
        One of `READERS`, or a path that ends in ".jsonl".
    root : path, optional
        The set's folder; not needed for a JSONL file.
    split : str
        "train", "validation" or "test", if the set has it.

    Raises
    ------
    DatasetError
        If the name is unknown, or the data are missing or malformed. The message names file and row.
    """
    name = str(name_or_path)
    if name.endswith(".jsonl"):
        return read_jsonl(name, split)
    if name not in READERS:
        raise DatasetError(
            f"{name}: no such layout; expected one of {', '.join(READERS)}, or the path of a .jsonl file"
        )
    if root is None:
        raise DatasetError(f"{name}: no folder given; expected the data set's folder")
    return READERS[name](Path(root), split)
