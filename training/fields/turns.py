"""Questions about what the kit's labelled pictures show, as training examples for the language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from radfound.datasets.example import Example, Turn
from training.fields.samples import Sample, kit_samples

QUESTIONS: dict[str, tuple[str, ...]] = {
    "weighting": ("Which MR weighting is this?", "What MR sequence is shown?"),
    "contrast": ("Was intravenous contrast given?", "Is this a contrast-enhanced CT?"),
    "location": ("Which part of the body is affected?", "Where in the body is the disease?"),
    "projection": ("Is this a PA or an AP film?", "Which projection is this?"),
    "side": ("Which breast is shown?", "Is this the left or the right breast?"),
    "density": ("How dense is the breast?", "What is the breast density?"),
}
# No licence is stated for these sets: they are for probes and tables, not for weights that are shipped.
_WITHOUT_LICENCE = frozenset(("head_ct_hemorrhage", "kidney_ct"))
_NEGATIVES = ("no brain tumor", "no covid-19")


def labelled_pictures(
    root: str | Path, split: str = "train", every_nth_finding: int = 4
) -> Iterator[Example]:
    """Yield the kit's labelled pictures with a question for each field and finding that is known.

    Parameters
    ----------
    root : path
        The kit's folder.
    split : {"train", "validation", "test"}
    every_nth_finding : int
        Of the pictures with findings, one in so many is used.
    """
    samples = [s for s in kit_samples(root) if s.split == split and s.set not in _WITHOUT_LICENCE]
    findings = _findings_by_set(samples)
    seen = 0
    for sample in samples:
        if sample.findings is not None:
            seen += 1
            if seen % every_nth_finding:
                continue
        turns = tuple(_turns(sample, findings.get(sample.set, []), seen))
        if turns:
            yield Example(
                sample.patient,
                (sample.file,),
                turns,
                dict(sample.labels),
                source=sample.set,
                split=split,
                footer=sample.footer,
            )


def _findings_by_set(samples: list[Sample]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for sample in samples:
        found.setdefault(sample.set, set()).update(sample.findings or ())
    return {name: sorted(known - set(_NEGATIVES)) for name, known in found.items()}


def _turns(sample: Sample, of_set: list[str], number: int) -> Iterator[Turn]:
    for name, questions in QUESTIONS.items():
        if name in sample.labels:
            yield Turn("vqa", questions, sample.labels[name])
    if not sample.findings and not of_set:
        return
    shown = [finding for finding in sample.findings or () if finding in of_set]
    absent = [finding for finding in of_set if finding not in shown]
    for finding in shown[:2]:
        yield Turn("vqa", _asking(finding), "yes", "closed")
    # As many findings that are not there, another one for each picture.
    for step in range(min(len(absent), max(1, len(shown[:2])))):
        yield Turn("vqa", _asking(absent[(number + step) % len(absent)]), "no", "closed")


def _asking(finding: str) -> tuple[str, ...]:
    return f"Is there {finding}?", f"Does this picture show {finding}?"
