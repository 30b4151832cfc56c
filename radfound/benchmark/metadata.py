"""How well a model tells modality, plane and body region, in words, beside two controls.

`python -m radfound.benchmark.metadata --data KIT` prints a table of the MedPix test figures: the share of
right answers, the share that the commonest answer of the training figures would get, and the share that
the same model gets on a black image.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from radfound.benchmark.medpix import METADATA_QUESTIONS, metadata_answers, without_footer
from radfound.engine import Engine
from radfound.exceptions import RequestError
from radfound.reading import read_study
from radfound.study import Study


def normalised(answer: str) -> str:
    """Return an answer in lower case without punctuation and articles, as VQA metrics compare them."""
    words = re.sub(r"[^\w\s]", " ", answer.lower()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def blanked(study: Study) -> Study:
    """Return the study with every voxel zero."""
    return Study(
        tuple(replace(image, voxels=np.zeros_like(image.voxels)) for image in study.images)
    )


def evaluate(
    ask: Callable[[Study, str], str],
    rows: Sequence[dict[str, Any]],
    root: Path,
    splits: Sequence[str],
) -> list[dict[str, Any]]:
    """Return one row for each field: n, and the shares right of model, majority answer and blank image.

    Parameters
    ----------
    ask : callable
        From study and question to the answer's text.
    rows : sequence of dict
        Of `medpix_captions.jsonl`.
    root : Path
        Folder that the rows' image paths are relative to.
    splits : sequence of str
        Which rows are asked about; the majority comes from the training rows.
    """
    commonest = {
        name: Counter(
            metadata_answers(row).get(name) for row in rows if row["split"] == "train"
        ).most_common(1)[0][0]
        for name in METADATA_QUESTIONS
    }
    right: dict[str, list[tuple[bool, bool, bool]]] = {name: [] for name in METADATA_QUESTIONS}
    for row in rows:
        if row["split"] not in splits:
            continue
        figure = read_study(root / row["image"])
        study = Study(tuple(without_footer(image) for image in figure.images))
        for name, truth in metadata_answers(row).items():
            question = METADATA_QUESTIONS[name][0]
            given = [ask(study, question), str(commonest[name]), ask(blanked(study), question)]
            hits = [normalised(answer) == normalised(truth) for answer in given]
            right[name].append((hits[0], hits[1], hits[2]))
    everything = [hits for some in right.values() for hits in some]
    return [_row(name, some) for name, some in (*right.items(), ("all", everything))]


def _row(name: str, hits: Sequence[tuple[bool, bool, bool]]) -> dict[str, Any]:
    if not hits:
        raise RequestError(
            f"{name}: no figure with an answer in these splits; expected some of train, validation, test"
        )
    model, majority, blank = np.mean(np.array(hits, dtype=float), axis=0).tolist()
    return {"field": name, "n": len(hits), "model": model, "majority": majority, "blank": blank}


def table(results: Sequence[dict[str, Any]]) -> str:
    """Return the results as a Markdown table, in per cent."""
    lines = [
        "| question | n | model | majority answer | blank image |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in results:
        shares = " | ".join(f"{100 * row[column]:.1f}" for column in ("model", "majority", "blank"))
        lines.append(f"| {row['field']} | {row['n']} | {shares} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data kit")
    parser.add_argument("--model", default="radfound-mini")
    parser.add_argument(
        "--splits", default="test", help="comma-separated, of train, validation, test"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    lines = (
        (args.data / "captions" / "medpix_captions.jsonl").read_text(encoding="utf-8").splitlines()
    )
    engine = Engine.load(args.model)
    results = evaluate(
        lambda study, question: engine.answer(study, "vqa", question, max_new_tokens=12).text,
        [json.loads(line) for line in lines],
        args.data,
        args.splits.split(","),
    )
    print(json.dumps(results) if args.json else table(results))


if __name__ == "__main__":
    main()
