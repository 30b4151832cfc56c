"""Inspect a data set: `python -m radfound.datasets overlap vqa-rad FOLDER`.

Prints the number of studies, images and turns of each split, and the overlap of each pair of splits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from radfound.datasets import READERS, open_dataset, overlaps
from radfound.exceptions import RadFoundError


def report(name: str, root: str | None, splits: Sequence[str], by_content: bool) -> str:
    """Return the two tables in Markdown."""
    found = {split: list(open_dataset(name, root, split)) for split in splits}
    lines = ["| split | studies | images | turns |", "| --- | --- | --- | --- |"]
    for split, examples in found.items():
        images = len({file for example in examples for file in example.files})
        turns = sum(len(example.turns) for example in examples)
        lines.append(f"| {split} | {len(examples)} | {images} | {turns} |")
    lines += [
        "",
        "| in both | images | patients, cases or images | same question, same image |",
        "| --- | --- | --- | --- |",
    ]
    for shared in overlaps(found, by_content):
        pair = f"{shared.first} and {shared.second}"
        lines.append(f"| {pair} | {shared.images} | {shared.keys} | {shared.questions} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m radfound.datasets", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    overlap = commands.add_parser("overlap", help="count what the splits of a data set share")
    overlap.add_argument("name", help=f"{', '.join(READERS)}, or the path of a .jsonl file")
    overlap.add_argument("root", nargs="?", help="the data set's folder")
    overlap.add_argument("--splits", default="train,validation,test", help="comma-separated")
    overlap.add_argument(
        "--by-content", action="store_true", help="compare the files' bytes instead of their paths"
    )
    args = parser.parse_args(argv)
    try:
        print(report(args.name, args.root, args.splits.split(","), args.by_content))
    except RadFoundError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
