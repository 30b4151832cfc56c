"""Try a model on three synthetic studies: what it can do, how fast, and whether it looks at the picture."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from radfound.engine.protocol import Backend, Description
from radfound.engine.stream import Token
from radfound.exceptions import RadFoundError
from radfound.question import Question
from radfound.study.study import Study, StudyImage

QUESTION = Question(text="Describe what is shown in one sentence.")
ANSWER_TOKENS = 24
_LEAST_CHANGE = 1e-3  # of a log-probability
_ADAPTER = "checked"


@dataclass(frozen=True)
class Asked:
    """One study's answer.

    Parameters
    ----------
    study : str
    pictures : int or None
        Pictures that the model was shown; None if it has no recipe.
    note : str or None
        What was left out.
    first_token_s, tokens_per_s : float or None
        None if the answer failed, or has a single token.
    tokens : int
    changed_by_picture : bool or None
        Whether a blank image of the same size changes the answer; None if it is not known.
    problem : str or None
        Message of the error, if the answer failed.
    """

    study: str
    pictures: int | None = None
    note: str | None = None
    first_token_s: float | None = None
    tokens_per_s: float | None = None
    tokens: int = 0
    changed_by_picture: bool | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Report:
    """What a check found.

    Parameters
    ----------
    description : Description
    load_s : float
    asked : tuple of Asked
    destination : str or None
        Where pictures are sent, in words; None if they stay on this machine.
    adapter : str
        Whether an adapter changes the log-probabilities, in words.
    """

    description: Description
    load_s: float
    asked: tuple[Asked, ...]
    destination: str | None = None
    adapter: str = "not checked; name one with --adapter FOLDER"


def synthetic_studies() -> dict[str, Study]:
    """Return three studies without a patient: a radiograph, a CT and an MR, each with a bright sphere."""
    rows, columns = np.mgrid[:256, :256] / 255.0
    disc = (rows - 0.6) ** 2 + (columns - 0.35) ** 2 < 0.02
    radiograph = (900 * rows + 400 * columns + 1500 * disc).astype(np.float32)[None]
    k, j, i = np.mgrid[:24, :96, :96]
    body = ((j - 48) / 40) ** 2 + ((i - 48) / 44) ** 2 < 1
    sphere = (k - 12) ** 2 * 6 + (j - 55) ** 2 + (i - 30) ** 2 < 150
    ct = np.where(body, 40.0, -1000.0) + 300.0 * sphere
    mr = np.where(body, 200.0 + 4 * j, 5.0) + 600.0 * sphere
    affine = np.diag([-4.0, -4.0, 5.0, 1.0])
    return {
        "radiograph": Study([StudyImage(radiograph, np.eye(4), modality="DX", calibrated=False)]),
        "CT": Study([StudyImage(ct.astype(np.float32), affine, modality="CT", hounsfield=True)]),
        "MR": Study([StudyImage(mr.astype(np.float32), affine, modality="MR")]),
    }


def check_model(backend: Backend, *, load_s: float = 0.0, adapter: Path | None = None) -> Report:
    """Ask a model about three synthetic studies.

    Parameters
    ----------
    backend : Backend
    load_s : float
        Time that loading took.
    adapter : Path or None
        Folder of an adapter to try; it is dropped again.
    """
    asked = tuple(_try(backend, name, study) for name, study in synthetic_studies().items())
    report = Report(
        backend.describe(), load_s, asked, destination=getattr(backend, "destination", None)
    )
    if adapter is None:
        return report
    return replace(report, adapter=_try_adapter(backend, adapter))


def _try(backend: Backend, name: str, study: Study) -> Asked:
    try:
        backend.check(QUESTION, ANSWER_TOKENS, images=len(study.images))
        began = time.monotonic()
        stream = backend.stream(study, QUESTION, adapter=None, limit=ANSWER_TOKENS)
        timed = [(time.monotonic() - began, token) for token in stream]
        blank = list(backend.stream(study.blanked(), QUESTION, adapter=None, limit=ANSWER_TOKENS))
    except RadFoundError as error:
        return Asked(name, problem=str(error))
    tokens = [token for _, token in timed]
    times = [at for at, _ in timed]
    shown = stream.shown
    return Asked(
        name,
        pictures=len(shown.pictures) if shown else None,
        note=shown.note if shown else None,
        first_token_s=times[0] if times else None,
        tokens_per_s=(len(times) - 1) / span if times and (span := times[-1] - times[0]) else None,
        tokens=len(tokens),
        changed_by_picture=_differ(tokens, blank) if tokens else None,
    )


def _differ(some: list[Token], others: list[Token]) -> bool:
    if "".join(t.text for t in some) != "".join(t.text for t in others):
        return True
    one, other = some[0].log_probability, others[0].log_probability
    return one is not None and other is not None and abs(one - other) > _LEAST_CHANGE


def _try_adapter(backend: Backend, folder: Path) -> str:
    # llama.cpp has adapters by the name of their file.
    name = folder.stem if backend.describe().abilities.adapters == "at start" else _ADAPTER
    try:
        backend.use_adapter(name, folder)
    except RadFoundError as error:
        return f"no: {error}"
    backend.drop_adapter(name)
    return "yes"


def lines(report: Report) -> Iterator[str]:
    """Yield a report as lines of text."""
    about = report.description
    can = about.abilities
    verbs = [verb for verb in ("score", "choose", "embed", "evidence") if getattr(can, verb)]
    known = {"none": "none", "top": "of the likely tokens (entropy is a lower bound)", "all": "all"}
    yield f"model            {about.name}, revision {about.revision}, loaded in {report.load_s:.1f} s"
    yield f"images           {report.destination or 'stay on this machine'}"
    yield f"context          {about.context_tokens or 'unknown'} tokens"
    yield f"images allowed   {about.max_images} in one study; a volume is one image"
    yield f"log-probabilities {known[can.probabilities]}"
    yield f"besides answers  {', '.join(verbs) or 'nothing'}"
    yield f"adapters         {can.adapters}; changes the log-probabilities: {report.adapter}"
    yield f"recipe           {about.recipe or 'of its own'}"
    for asked in report.asked:
        yield f"{asked.study:<17}{_in_words(asked)}"


def _in_words(asked: Asked) -> str:
    if asked.problem is not None:
        return f"DOES NOT FIT: {asked.problem}"
    words = []
    if asked.pictures is not None:
        pictures = "1 picture" if asked.pictures == 1 else f"{asked.pictures} pictures"
        words.append(pictures + (f" ({asked.note})" if asked.note else ""))
    if asked.first_token_s is not None:
        words.append(f"first token {asked.first_token_s:.2f} s")
    if asked.tokens_per_s is not None:
        words.append(f"{asked.tokens_per_s:.0f} tokens/s")
    if asked.changed_by_picture is None:
        words.append("NO ANSWER")
    else:
        changes = "changes the answer" if asked.changed_by_picture else "CHANGES NOTHING"
        words.append(f"the picture {changes}")
    return ", ".join(words)
