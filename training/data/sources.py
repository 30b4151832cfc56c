"""Sources of a stage's examples: published layouts, the user's files, and shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from radfound.datasets import READERS, Example, open_dataset
from radfound.exceptions import TrainingError
from training.data.shards import read_shards

SHARDS = "shards"


def read_source(source: str, split: str, scratch: Path) -> Iterator[Example]:
    """Load the examples of one source.

    Parameters
    ----------
    source : str
        "LAYOUT:FOLDER" with a layout of `radfound.datasets.READERS`, "shards:FOLDER" with output of
        `training.data.shards`, or a path that ends in ".jsonl".
    split : str
        "train" or "validation"; shards hold one split and are loaded completely.
    scratch : Path
        Folder for the unpacked files of shards, with a subfolder for each source.

    Raises
    ------
    TrainingError
        If the source is none of these.
    DatasetError
        If the data are missing or malformed, or there is no such layout.
    """
    if source.endswith(".jsonl"):
        return open_dataset(source, split=split)
    layout, separator, folder = source.partition(":")
    if not separator or not folder:
        raise TrainingError(
            f"{source!r} is no source; expected LAYOUT:FOLDER ({', '.join(READERS)}), {SHARDS}:FOLDER, "
            "or the path of a .jsonl file"
        )
    if layout == SHARDS:
        return read_shards(Path(folder), scratch / Path(folder).name)
    return open_dataset(layout, folder, split)
