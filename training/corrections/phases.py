"""The phases of a fine-tuning run, in words for people, and how long the rest of the run takes."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from radfound.records.durable import make_directory, read_json, replace_text
from training.loop.config import Progress

logger = logging.getLogger(__name__)

Report = Callable[[Progress], None]

LOADING = "loading the model"
READING = "reading the studies"
COMPARING = "checking what the model answers now"
REHEARSING = "learning all but a few studies, to examine it on these"
LEARNING = "learning the corrections"
CHECKING = "checking against known questions"

_FIRST_S = {
    LOADING: 5.0,
    READING: 1.0,
    COMPARING: 0.025,
    REHEARSING: 0.4,
    LEARNING: 0.4,
    CHECKING: 0.02,
}
"""Seconds for each piece of work of a phase, on two quiet cores: what a machine's first run expects."""
_TRUST_S = 10.0  # of a run; then its own speed counts as much as that of earlier runs
_EVERY_S = 1.0  # between two reports of one phase


class Phases:
    """Reports the phase of a run, and the seconds that are left of the whole run.

    The estimate is the work that is left in each phase, at the speed of earlier runs on this machine. It is
    corrected during the run: a machine that is busy is slower at everything.

    Parameters
    ----------
    report : callable or None
    work : dict of str to int
        Expected pieces of work of each phase, in the order of the phases: studies, answers or steps.
    file : Path, optional
        Where the speed of earlier runs is kept.
    clock : callable
        Returns seconds.
    """

    def __init__(
        self,
        report: Report | None,
        work: Mapping[str, int],
        file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._report, self._file, self._clock = report, file, clock
        self._work = dict(work)
        self._pace = _FIRST_S | _paces(file)
        self._done = dict.fromkeys(work, 0)
        self._seconds = dict.fromkeys(work, 0.0)
        self._phase = ""
        self._began = self._entered = clock()
        self._reported = -math.inf

    def begin(self, phase: str, work: int | None = None) -> None:
        """Enter a phase; the one before is over.

        Parameters
        ----------
        phase : str
        work : int, optional
            Pieces of work, where that is known better by now.
        """
        self._leave()
        self._phase, self._entered = phase, self._clock()
        self._work[phase] = self._work.get(phase, 0) if work is None else work
        self._done[phase] = 0
        self._tell()

    def advance(self, count: int) -> None:
        """Count pieces of work that are done."""
        self._done[self._phase] += count
        if self._clock() - self._reported >= _EVERY_S:
            self._tell()

    def step(self, progress: Progress) -> None:
        """Count the steps of a training, and report its loss."""
        self._done[self._phase] = progress.step
        if self._work[self._phase] <= progress.step:  # it takes longer than expected
            self._work[self._phase] = min(progress.total, round(1.5 * progress.step))
        self._tell(progress)

    def end(self) -> None:
        """Keep the speed of this run for the estimates of later ones."""
        self._leave()
        self._phase = ""
        if self._file is None:
            return
        known = _paces(self._file)
        for phase, done in self._done.items():
            if done:
                pace = self._seconds.get(phase, 0.0) / done
                known[phase] = (known[phase] + pace) / 2 if phase in known else pace
        try:
            make_directory(self._file.parent)
            replace_text(self._file, json.dumps(known) + "\n")
        except OSError as error:
            logger.warning("the speed of this run is not kept: %s", error)

    @property
    def seconds_left(self) -> float:
        """Estimate for the rest of the run."""
        expected = sum(self._done[phase] * self._pace[phase] for phase in self._done)
        left = sum(
            max(0, self._work[phase] - self._done.get(phase, 0)) * self._pace[phase]
            for phase in self._work
        )
        elapsed = self._clock() - self._began
        return left * (elapsed + _TRUST_S) / (expected + _TRUST_S)

    def _leave(self) -> None:
        """Close the current phase: what was left of it is not needed any more."""
        if self._phase:
            self._seconds[self._phase] = self._clock() - self._entered
            self._work[self._phase] = self._done[self._phase]

    def _tell(self, progress: Progress | None = None) -> None:
        self._reported = self._clock()
        if self._report is None:
            return
        done, work = self._done[self._phase], self._work[self._phase]
        news = progress or Progress(min(done, work), work, math.nan, math.nan)
        self._report(replace(news, seconds_left=self.seconds_left, message=self._phase))


def _paces(file: Path | None) -> dict[str, float]:
    """Return the seconds for each piece of work in earlier runs; empty if none are kept."""
    found: dict[str, Any] = {} if file is None else read_json(file, dict, "speed of trainings")
    return {
        phase: float(pace)
        for phase, pace in found.items()
        if phase in _FIRST_S and isinstance(pace, (int, float)) and 0 < pace < math.inf
    }
