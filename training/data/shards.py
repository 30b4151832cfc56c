"""Examples in WebDataset's .tar shards, for file systems that are slow with millions of small files.

Write: `python -m training.data.shards LAYOUT FOLDER --out DIR [--split train] [--megabytes 512]`, with a layout of
`radfound.datasets.READERS`. Load: `read_shards`, which yields the same examples.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from radfound.datasets import READERS, Example, Turn, open_dataset
from radfound.exceptions import DatasetError, RadFoundError
from radfound.optional import library

_SUFFIX = re.compile(r"(\.nii\.gz|\.[A-Za-z0-9]+)$")


def write_shards(examples: Iterable[Example], out: Path, max_bytes: float = 512e6) -> list[Path]:
    """Write examples with their files into `shard-000000.tar` and so on.

    Parameters
    ----------
    examples : iterable of Example
    out : Path
        A folder without shards.
    max_bytes : float
        Size after which a new shard begins.

    Returns
    -------
    list of Path

    Raises
    ------
    DatasetError
        If there are no examples, a file is missing, or the folder already has shards.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any(out.glob("shard-*.tar")):
        raise DatasetError(f"{out}: has shards already; remove them or name another folder")
    count = 0
    with library("webdataset", "train").ShardWriter(
        str(out / "shard-%06d.tar").replace("\\", "/"), maxsize=max_bytes, verbose=0
    ) as writer:
        for count, example in enumerate(examples, 1):
            writer.write({"__key__": f"{count - 1:09d}", **_packed(example)})
    if not count:
        for path in out.glob("shard-*.tar"):
            path.unlink()
        raise DatasetError("no examples to write; look at the layout, the folder and the split")
    return sorted(out.glob("shard-*.tar"))


def _packed(example: Example) -> dict[str, bytes]:
    """Return an example as entries of a shard: `json`, and the files under numbered names."""
    entries: dict[str, bytes] = {}
    file_names: list[list[str]] = []
    for number, path in enumerate(example.files):
        parts = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        names = []
        for index, part in enumerate(parts):
            suffix = _SUFFIX.search(part.name)
            # Only the suffix is kept, since a file's name may hold a patient's name.
            name = f"{number}-{index}{suffix.group(0).lower() if suffix else ''}"
            try:
                entries[name] = part.read_bytes()
            except OSError as error:
                raise DatasetError(f"{part}: cannot be read ({error.strerror})") from error
            names.append(name)
        file_names.append(names)
    folders = [path.is_dir() for path in example.files]
    known = asdict(example) | {"files": file_names, "folders": folders}
    return {"json": json.dumps(known).encode(), **entries}


def read_shards(
    shards: Path | Sequence[Path], scratch: Path, process: int = 0, processes: int = 1
) -> Iterator[Example]:
    """Load the examples that `write_shards` wrote.

    Parameters
    ----------
    shards : Path or sequence of Path
        A folder of shards, or shards.
    scratch : Path
        Folder for the unpacked files while the examples are in use; best on a fast disk.
    process, processes : int
        Rank and number of processes; each loads every `processes`-th shard.

    Yields
    ------
    Example

    Raises
    ------
    DatasetError
        If there are fewer shards than processes, or a shard was not written by this module.
    """
    paths = sorted(shards.glob("*.tar")) if isinstance(shards, Path) else list(shards)
    if len(paths) < processes or not paths:
        raise DatasetError(
            f"{len(paths)} shards found for {processes} processes; expected one for each at least: "
            "write smaller ones with --megabytes"
        )
    for path in paths[process::processes]:
        samples = library("webdataset", "train").WebDataset(str(path), shardshuffle=False)
        for sample in samples:
            yield _unpacked(sample, path, scratch / path.stem)


def _unpacked(sample: dict[str, Any], shard: Path, folder: Path) -> Example:
    try:
        known = json.loads(sample["json"])
        file_names, folders = known.pop("files"), known.pop("folders")
        files = []
        for number, (names, is_folder) in enumerate(zip(file_names, folders, strict=True)):
            subfolder = folder / f"{sample['__key__']}-{number}"
            target = subfolder if is_folder else folder
            target.mkdir(parents=True, exist_ok=True)
            written = [target / f"{sample['__key__']}-{name}" for name in names]
            for name, path in zip(names, written, strict=True):
                path.write_bytes(sample[name])
            files.append(subfolder if is_folder else written[0])
        turns = [Turn(**turn | {"questions": tuple(turn["questions"])}) for turn in known["turns"]]
        return Example(**known | {"files": tuple(files), "turns": tuple(turns)})
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{shard}: sample {sample.get('__key__')} is not of training.data.shards ({error})"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.data.shards", description=__doc__)
    parser.add_argument("layout", help=f"{', '.join(READERS)}, or the path of a .jsonl file")
    parser.add_argument("root", nargs="?", help="the data set's folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--megabytes", type=float, default=512.0, help="largest shard, about")
    given = parser.parse_args(arguments)
    try:
        examples = open_dataset(given.layout, given.root, given.split)
        paths = write_shards(examples, given.out, given.megabytes * 1e6)
    except RadFoundError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(f"{len(paths)} shards in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
