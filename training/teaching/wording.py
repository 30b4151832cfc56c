"""Templates of a department's wording: how soon they are proposed, and how often they are right.

Run as `python -m training.teaching.wording --data KIT --cache FOLDER`. A reader names the series of half of the cases of
docs/learning.md's ward *house style*. The fields are the language model's own three answers, or what the classifiers
name, as on a server (`--fields`). A simulated person accepts the first template that is proposed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from radfound.commands import run_command
from radfound.datasets.metadata import METADATA_QUESTIONS
from radfound.question import Question
from radfound.records.corrections import CorrectionLog
from radfound.teaching import Teaching
from radfound.teaching.decisions import Decisions
from training.teaching.corrected import accuracy, judged
from training.teaching.wards import Ward, divided, open_ward

NAME = "How does our department name this series?"
COLUMNS = ("proposed", "first is right", "new figures", "ceiling")
SOURCES = ("model", "classifiers")
TEMPLATE = "{modality} of the {region}, {plane}"


def known_fields(ward: Ward, source: str) -> dict[str, Mapping[str, str]]:
    """Return what is known of each study by its digest: by the language "model", or by the "classifiers"."""
    if source == "classifiers":
        return dict(zip(ward.digests.tolist(), ward.fields, strict=True))
    return {
        str(digest): {
            name: str(ward.base[words[0]][row]) for name, words in METADATA_QUESTIONS.items()
        }
        for row, digest in enumerate(ward.digests)
    }


def trial(ward: Ward, seed: int, count: int, source: str, folder: Path) -> dict[str, float]:
    """Return whether a template was proposed after `count` corrections, and how often it names others rightly."""
    inside, outside = divided(list(ward.patients), seed)
    fields = known_fields(ward, source)
    log = CorrectionLog(folder / "corrections.sqlite")
    for row in inside[:count].tolist():
        log.append(judged(ward, row, NAME, "CT"))
    teaching = Teaching(log, Decisions(folder / "templates.sqlite"), fields=fields.get)  # type: ignore[arg-type]
    proposed = [each.template for each in teaching.templates()]
    if proposed:
        teaching.accept(proposed[0].id, "simulated person")
    question = Question("vqa", NAME)
    taught = [
        teaching.after_answer(str(ward.digests[row]), (f"i{row}",), question, "") for row in outside
    ]
    given = np.array([each.text if each and each.text else "" for each in taught])
    right = ward.right[outside]
    known = [fields[str(ward.digests[row])] for row in outside]
    ceiling = np.array(
        [
            TEMPLATE.format_map(some) if some.keys() >= METADATA_QUESTIONS.keys() else ""
            for some in known
        ]
    )
    return {
        "proposed": 100.0 * bool(proposed),
        "first is right": 100.0 * (bool(proposed) and proposed[0].text == TEMPLATE),
        "new figures": 100 * accuracy(right, given),
        "ceiling": 100 * accuracy(right, ceiling),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.teaching.wording", description=__doc__
    )
    parser.add_argument("--data", type=Path, help="the data kit; needed once to fill the cache")
    parser.add_argument("--cache", type=Path, required=True, help="folder for features and answers")
    parser.add_argument("--fields", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 3, 5, 10, 20])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(100)))
    args = parser.parse_args(arguments)
    ward = open_ward("house-style", args.cache, args.data)
    print("| fields | corrections | " + " | ".join(COLUMNS) + " | range |")
    print("| --- " * (len(COLUMNS) + 3) + "|")
    for source in args.fields:
        for count in args.counts:
            table = []
            for seed in args.seeds:
                with tempfile.TemporaryDirectory() as folder:
                    found = trial(ward, seed, count, source, Path(folder))
                table.append([found[column] for column in COLUMNS])
            means = " | ".join(f"{n:.1f}" for n in np.mean(table, axis=0))
            lowest, highest = np.min(table, axis=0)[2], np.max(table, axis=0)[2]
            print(f"| {source} | {count} | {means} | {lowest:.1f} to {highest:.1f} |", flush=True)


if __name__ == "__main__":
    run_command(main)
