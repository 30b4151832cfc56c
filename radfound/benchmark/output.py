"""Files of a RadVLBench run: results.json, report.md, answers.csv; for plots see `plots`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from radfound.benchmark.looking.report import looking_lines
from radfound.benchmark.markdown import header, number
from radfound.benchmark.runner import (
    ALIKE,
    BLANK,
    MAJORITY,
    MODEL,
    NEAREST,
    OTHER,
    PROBE,
    WORDS,
    Run,
)
from radfound.benchmark.scoring.scores import confidence_of, is_right
from radfound.benchmark.tasks import NEW_IMAGE, NOT_STATED, TRAINED
from radfound.engine.confidence import Calibration
from radfound.exceptions import RequestError, StorageError
from radfound.spreadsheet import read_rows, write_rows

COLUMNS = {
    MODEL: "model",
    MAJORITY: "majority answer",
    WORDS: "words alone",
    NEAREST: "nearest question",
    BLANK: "blank image",
    OTHER: "another patient's image",
    ALIKE: "another patient, same kind of image",
    PROBE: "ImageNet probe",
}
"""The columns of the table in order, with their headings."""

LEADS = {
    f"over_{BLANK}": "over blank",
    f"over_{OTHER}": "over another's",
    f"over_{ALIKE}": "over same kind",
    f"over_{WORDS}": "over words alone",
}
"""The model's leads over its controls, with their headings."""

TITLES = {
    "metadata": "Modality, plane and region",
    "vqa": "Questions",
    "caption": "Captions",
    "report": "Reports",
    TRAINED: "Questions that it was trained on",
}
ANSWER_FIELDS = (
    "task", "id", "patient", "group", "rows", "modality", "organ_system", "question", "truth",
    *COLUMNS, "probability", "confidence", "right",
)  # fmt: skip
FEWEST_SHOWN = 10  # fewest items for a row in the report; results.json has all rows
MARKS = ("<!-- radvlbench -->", "<!-- /radvlbench -->")


def write_json(results: dict[str, Any], folder: Path) -> None:
    """Write results.json, with null for missing scores."""
    text = json.dumps(without_nan(results), indent=1, ensure_ascii=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    """Return JSON values with null for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_answers(runs: Sequence[Run], calibration: Calibration | None, folder: Path) -> None:
    """Write answers.csv: one line for each item, with the answers of model and controls."""
    write_rows(folder / "answers.csv", ANSWER_FIELDS, _answer_lines(runs, calibration))


def _answer_lines(runs: Sequence[Run], calibration: Calibration | None) -> Iterator[dict[str, Any]]:
    for run in runs:
        for k, item in enumerate(run.task.items):
            right = is_right(item, run.answers[MODEL][k])
            confidence = confidence_of(item, run.probabilities[k], calibration)
            line = {
                "task": run.task.name,
                "id": item.id,
                "patient": item.example.key,
                "group": item.group,
                "rows": "; ".join(item.rows),
                "modality": item.modality,
                "organ_system": item.organ_system,
                "question": item.question.text or "",
                "truth": item.turn.answer,
                "probability": _four_digits(run.probabilities[k]),
                "confidence": _four_digits(confidence),
                "right": "" if math.isnan(right) else int(right),
            }
            yield line | {name: texts[k] for name, texts in run.answers.items()}


def _four_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def read_answers(folder: Path) -> dict[tuple[str, str], str]:
    """Return the model's answers in another run's folder, by task and id."""
    path = folder / "answers.csv"
    if not path.is_file():
        raise RequestError(
            f"--compare: {path} not found; expected the --out folder of another run of `radfound bench`"
        )
    with path.open(encoding="utf-8", newline="") as file:
        rows = read_rows(file)
    try:
        return {(row["task"], row["id"]): row[MODEL] for row in rows}
    except KeyError as error:
        raise RequestError(
            f"--compare: {path} has no column {error}; run that model again with this version"
        ) from error


# Markdown --------------------------------------------------------------------------------------


def report(results: dict[str, Any]) -> str:
    """Return the tables in Markdown."""
    model = results["model"]
    lines = [
        f"Model `{model['name']}` ({model['revision']}), radfound {results['versions']['radfound']}, seed "
        f"{results['seed']}. Shares in per cent, with 95 % intervals (bootstrap over patients). The last columns say "
        "how far the model is above its controls: itself on a blank image, on another patient's, on another "
        "patient's of the same modality and region, and a predictor that is given the words alone.",
    ]
    if results["limit"] is not None:
        lines += ["", f"**At most {results['limit']} studies a split: a trial, not a result.**"]
    lines += looking_lines(results)
    for name, task in results["tasks"].items():
        lines += ["", f"**{TITLES[name]}** ({task['items']} from {task['patients']} patients)", ""]
        lines += _table([row for row in task["rows"] if is_shown(row)])
        if name not in ("metadata", TRAINED):
            lines += _split_lines(task["by"])
        if refused := task.get("refused"):
            lines += ["", f"Not answered, and counted as wrong: {', '.join(sorted(refused))}"]
    lines += _calibration_lines(results["calibration"])
    if results["comparison"]:
        lines += ["", f"**Beside `{results['comparison']['model']}`**, on the same items", ""]
        lines += _comparison_lines(results["comparison"]["rows"])
    return "\n".join(lines) + "\n"


def is_shown(row: dict[str, Any]) -> bool:
    """Whether the report shows a row; rows on new images need enough items."""
    return not row["row"].endswith(NEW_IMAGE) or row["n"] >= FEWEST_SHOWN


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    shown = [column for column in COLUMNS if column in rows[0]]
    names = dict.fromkeys(row["row"] for row in rows)
    alone = len(names) == 1
    heads = ["score" if alone else "question", *([] if alone else ["score"]), "n"]
    leads = {name: head for name, head in LEADS.items() if name in rows[0]}
    heads += [COLUMNS[column] for column in shown] + list(leads.values())
    if not alone and len({row["score"] for row in rows}) == 1:
        heads.remove("score")
    lines = header(heads)
    for row in rows:
        cells = {
            "question": row["row"],
            "score": row["score"] + (" (lower is better)" if row["lower_is_better"] else ""),
            "n": str(row["n"]),
            **{COLUMNS[c]: number(row[c], row["percent"], c == MODEL) for c in shown},
            **{
                head: number(row[name], row["percent"], True, sign="+")
                for name, head in leads.items()
            },
        }
        lines.append("| " + " | ".join(cells[head] for head in heads) + " |")
    return lines


def _split_lines(by: dict[str, Any]) -> list[str]:
    """Return the first score of each group by modality and organ system, for parts with enough items."""
    shown = [MODEL, BLANK, ALIKE]
    rows = []
    for parts in by.values():
        for name, groups in parts.items():
            for group, row in groups.items():
                if row["n"] >= FEWEST_SHOWN and name != NOT_STATED:
                    values = [number(row[c], row["percent"], c == MODEL) for c in shown]
                    rows.append([name, f"{group}: {row['score']}", str(row["n"]), *values])
    if not rows:
        return []
    heads = ["part", "score", "n", *(COLUMNS[column] for column in shown)]
    return ["", *header(heads), *("| " + " | ".join(row) + " |" for row in rows)]


def _calibration_lines(table: dict[str, Any]) -> list[str]:
    if not table:
        return []
    lines = ["", "**Calibration** on the test questions (ECE, 15 bins)", ""]
    lines += header(["questions", "n", "token probability", "confidence"])
    for name, row in table.items():
        fitted = "-" if row["calibrated"] is None else f"{row['calibrated']['ece']:.3f}"
        lines.append(f"| {name} | {row['n']} | {row['raw']['ece']:.3f} | {fitted} |")
    return lines


def _comparison_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = header(["answers", "score", "n", "this model", "the other", "difference", "p"])
    for row in rows:
        numbers = [
            number(row["model"], row["percent"], False),
            number(row["other_run"], row["percent"], False),
            number(row["difference"], row["percent"], True, sign="+"),
            f"{row['difference']['p']:.3f}" if math.isfinite(row["difference"]["p"]) else "-",
        ]
        cells = [row["row"], row["score"], str(row["n"]), *numbers]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def side_by_side(folders: Sequence[Path]) -> str:
    """Return a Markdown table of several runs: each model's score, and its lead over blank and other images.

    Raises
    ------
    RequestError
        If a folder holds no results, or two runs are of different data or limits.
    """
    results = [_results(folder) for folder in folders]
    if len({(each["data"], each["limit"], each["seed"]) for each in results}) > 1:
        raise RequestError(
            "--table: the runs are of different data, --limit or --seed; compare like with like"
        )
    rows: dict[tuple[str, str], list[dict[str, Any] | None]] = {}
    for place, each in enumerate(results):
        for task in each["tasks"].values():
            for row in filter(is_shown, task["rows"]):
                about = rows.setdefault((row["row"], row["score"]), [None] * len(results))
                about[place] = row
    lines = header(["question", "score", *(f"{each['model']['name']}" for each in results)])
    for (question, score), cells in rows.items():
        lines.append("| " + " | ".join([question, score, *map(_beside, cells)]) + " |")
    return "\n".join(
        [
            "Each cell: score; lead over the same model on a blank and on another patient's image of the same modality "
            "and region (of any, in runs of earlier versions), 95 % intervals.",
            "",
            *lines,
        ]
    )


def _results(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as error:
        raise RequestError(
            f"--table: {folder} holds no results.json; expected the --out folder of a finished run"
        ) from error


def _beside(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    controls = ("over_blank", f"over_{ALIKE if f'over_{ALIKE}' in row else OTHER}")
    filled = {
        name: {key: math.nan if value is None else value for key, value in row[name].items()}
        for name in (MODEL, *controls)
    }
    leads = [number(filled[name], row["percent"], True, "+") for name in controls]
    return "; ".join([number(filled[MODEL], row["percent"], False), *leads])


def write_docs(text: str, path: Path) -> None:
    """Insert the tables between the two `MARKS` of a Markdown file."""
    before, after = marked_parts(path)
    path.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{after}", encoding="utf-8")


def marked_parts(path: Path) -> tuple[str, str]:
    """Return the text before and after the two `MARKS` of a Markdown file.

    Raises
    ------
    RequestError
        If the file or a mark is missing.
    """
    if not path.is_file():
        raise RequestError(f"--write-docs: {path} not found; expected a Markdown file")
    page = path.read_text(encoding="utf-8")
    if page.count(MARKS[0]) != 1 or page.count(MARKS[1]) != 1:
        raise RequestError(
            f"--write-docs: {path.name} needs a line {MARKS[0]} and a line {MARKS[1]}, once each; the tables go "
            "between them"
        )
    return page.split(MARKS[0])[0], page.split(MARKS[1])[1]


def make_folder(path: Path) -> Path:
    """Create the output folder before the model runs."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(13, "permission denied")
    except OSError as error:
        raise StorageError(
            f"--out: {path} cannot be written ({error.strerror}); give another folder"
        ) from error
    return path
