"""Measure whether worked examples help a model, on the corrections beside a folder of studies.

Run as `python -m training.teaching.examples --studies DIR`. Each correction is asked twice: alone, and after the nearest
corrected studies of other patients with the same question. The result is stored beside the model's adapters, and
the server shows worked examples from then on if they win: the lower end of the difference's interval, by patient,
is above zero.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from radfound.commands import run_command
from radfound.correction import Correction
from radfound.engine.engine import Engine
from radfound.engine.models.build import build_engine
from radfound.engine.models.settings import load_models, one_model
from radfound.exceptions import RadFoundError, RequestError
from radfound.question import Answer
from radfound.records.adapters import store_path
from radfound.records.corrections import CorrectionLog, log_path
from radfound.study.study import Study
from radfound.teaching.examples import MOST_EXAMPLES, ExamplesGain, worked_examples
from radfound.teaching.heads import Features, closed_questions
from radfound.teaching.questions import same_answer
from radfound.teaching.recall import Memory, confirmed_rows
from training.vlm.study_files import StudyFiles

logger = logging.getLogger(__name__)

FEWEST = 20
_DRAWS = 2000
Patient = Callable[[Correction], str]


def measure(
    engine: Engine,
    rows: Sequence[Correction],
    read: Callable[[tuple[str, ...]], Study],
    features: Features | None = None,
    *,
    patient: Patient | None = None,
    count: int = MOST_EXAMPLES,
) -> ExamplesGain:
    """Ask a model about corrected studies without and with worked examples.

    Parameters
    ----------
    engine : Engine
        Without an adapter.
    rows : sequence of Correction
        That hold, oldest first.
    read : callable
        From the ids of images to their study.
    features : callable, optional
        From a study's digest to its features.
    patient : callable, optional
        From a correction to its patient; by default each study is a patient.
    count : int
        Most examples before a question.

    Raises
    ------
    RequestError
        If the model takes no worked examples, or there are too few corrections.
    """
    model = engine.backend.describe()
    if not model.abilities.examples:
        raise RequestError(
            f"--model: {model.name} takes no worked examples; expected a model that takes several pictures"
        )
    of = patient or (lambda row: row.image_hash or row.id)
    pairs: list[tuple[str, bool, bool]] = []
    for some in closed_questions(confirmed_rows(rows)).values():
        for row in some:
            others = [each for each in some if of(each) != of(row)]
            try:
                study = read(row.images)
                examples = worked_examples(others, study, read, features, count=count)
                if examples:
                    alone, shown = (
                        same_answer(_text(engine, study, row, each), row.text)
                        for each in ((), examples)
                    )
                    pairs.append((of(row), alone, shown))
            except RadFoundError as error:
                logger.warning("a correction is left out: %s", error)
    if len(pairs) < FEWEST:
        raise RequestError(
            f"--studies: found {len(pairs)} corrections of questions that were asked of {FEWEST} studies or more; "
            f"expected {FEWEST}; correct more answers to the same question first"
        )
    patients = np.array([each for each, _, _ in pairs])
    before, after = (np.array(each, dtype=float) for each in list(zip(*pairs, strict=True))[1:])
    low, high = _interval(patients, after - before)
    return ExamplesGain(
        model.revision, count, len(pairs), len(set(patients)), round(float(before.mean()), 4),
        round(float(after.mean()), 4), round(low, 4), round(high, 4),
    )  # fmt: skip


def _text(engine: Engine, study: Study, row: Correction, examples: Sequence) -> str:
    stream = engine.stream(study, "vqa", row.question, model_only=True, examples=examples)
    *_, answer = stream
    assert isinstance(answer, Answer)
    return answer.text


def _interval(patients: np.ndarray, gain: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean gain, by bootstrap over patients."""
    names, owners = np.unique(patients, return_inverse=True)
    totals, counts = np.bincount(owners, gain), np.bincount(owners)
    drawn = np.random.default_rng(0).integers(0, len(names), (_DRAWS, len(names)))
    means = totals[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def kept_features(folder: Path) -> Features:
    """Return what gives the features that a server has kept of its studies."""

    def vector(digest: str) -> np.ndarray | None:
        try:
            with np.load(folder / f"{digest}.npz") as kept:
                return np.asarray(kept["vector"], np.float32)
        except (OSError, ValueError, KeyError):
            return None

    return vector


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.teaching.examples", description=__doc__
    )
    parser.add_argument("--studies", type=Path, required=True, help="folder that the server serves")
    parser.add_argument("--models", type=Path, help="the server's settings file, if it has one")
    parser.add_argument("--model", help="name in that file, or a model as for --conf model")
    parser.add_argument("--count", type=int, default=MOST_EXAMPLES, help="examples; %(default)s")
    args = parser.parse_args(arguments)
    if not args.studies.is_dir():
        raise RequestError(f"--studies: there is no folder {args.studies}")
    models = load_models(args.models) if args.models else one_model(args.model or "radfound-mini")
    model = models.named(args.model if args.models else None)
    store = store_path(args.studies, None if model.name == models.default else model.name)
    files = StudyFiles(args.studies)

    def read(images: tuple[str, ...]) -> Study:
        parts = [files.read(image).images for image in images]
        return Study(tuple(image for part in parts for image in part))

    engine = build_engine(model, send_images_to=models.send_images_to, calibration=store.parent)
    try:
        log = log_path(args.studies)
        rows = Memory(CorrectionLog(log)).rows()
        gain = measure(engine, rows, read, kept_features(log.parent / "features"), count=args.count)
    finally:
        engine.close()
    gain.write(store.parent)
    print(f"{model.name}: {gain.told()}")


if __name__ == "__main__":
    run_command(main)
