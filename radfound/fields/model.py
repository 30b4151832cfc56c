"""Read the fields and findings of a study, and answer the questions that ask for them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radfound.fields.catalogue import FIELDS, WORDS
from radfound.fields.compose import UNKNOWN_PICTURE, compose
from radfound.fields.features import FrameFeatures, field_frames, load_stem
from radfound.fields.files import read_heads, write_heads
from radfound.fields.heads import FieldHead, FindingHead
from radfound.fields.nearness import Nearness
from radfound.fields.questions import Asked, asked_for
from radfound.fields.stated import stated_fields
from radfound.fields.values import FieldAnswer, FieldValue, FindingValue, Reading
from radfound.question import CANNOT_TELL, Question
from radfound.study.study import Study

if TYPE_CHECKING:
    from radfound.study.region import Box, Plane

_REMEMBERED = 16
# Slices of volumes lie further from the training figures, which a person had chosen and windowed.
_VOLUME_LIMIT = 1.2
# The first and last slices of a volume show little, so that a quarter is enough.
_OF_THE_SLICES = 0.25
# A modality that the picture is not nearest to is named only if its own head is as sure as this.
_SURE_AGAINST_NEAREST = 0.8


class FieldModel:
    """Calibrated heads over frozen features. Thread-safe.

    Parameters
    ----------
    features : FrameFeatures
    nearness : Nearness
    fields : dict of str to FieldHead
    findings : sequence of FindingHead
    """

    def __init__(
        self,
        features: FrameFeatures,
        nearness: Nearness,
        fields: Mapping[str, FieldHead],
        findings: tuple[FindingHead, ...] = (),
    ):
        self.features = features
        self.nearness = nearness
        self.fields = dict(fields)
        self.finding_heads = tuple(findings)
        self._readings: OrderedDict[tuple[str, Any], Reading] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, folder: str | Path, stem: Any = None) -> FieldModel:
        """Load the heads that lie beside a checkpoint.

        Parameters
        ----------
        folder : path
            Holds `fields.json`, `fields.safetensors` and, unless `stem` is given, `model.safetensors`.
        stem : EfficientNetLite0Stem, optional
            The stem of the loaded model, to save its memory.

        Raises
        ------
        CheckpointError
            If a file is missing or damaged.
        """
        folder = Path(folder)
        heads = read_heads(folder)
        return cls(FrameFeatures(load_stem(folder) if stem is None else stem), *heads)

    def save(self, folder: Path) -> None:
        """Write `fields.json` and `fields.safetensors`, weights in float16."""
        write_heads(folder, self.nearness, self.fields, self.finding_heads)

    @property
    def finding_names(self) -> tuple[str, ...]:
        """Names of the findings that there are heads for."""
        return tuple(dict.fromkeys(each.finding for each in self.finding_heads))

    def read(self, study: Study, region: Box | Plane | None = None) -> dict[str, FieldValue]:
        """Return the fields that apply to a study, each with its value, probability and source."""
        return dict(self.reading(study, region).fields)

    def reading(self, study: Study, region: Box | Plane | None = None) -> Reading:
        """Return fields and findings of a study; those of the last few studies are kept.

        Parameters
        ----------
        study : Study
        region : Box or Plane, optional
            As `radfound.study.frames.make_frames` takes it.
        """
        key = (study.digest, region)
        with self._lock:
            if key in self._readings:
                self._readings.move_to_end(key)
                return self._readings[key]
        frames = field_frames(study, region)
        found = self.judge(self.features(frames.pixels), stated_fields(study, frames), study)
        with self._lock:
            self._readings[key] = found
            while len(self._readings) > _REMEMBERED:
                self._readings.popitem(last=False)
        return found

    def judge(
        self,
        features: Mapping[str, np.ndarray],
        stated: Mapping[str, str] | None = None,
        study: Study | None = None,
    ) -> Reading:
        """Return what is known from the features of a study's frames and from what its file states.

        Parameters
        ----------
        features : mapping of str to float array, shape (F, D)
            As `FrameFeatures` returns them.
        stated : mapping of str to str, optional
            Fields that the file states.
        study : Study, optional
            Findings are judged for one picture only, not for volumes and several views.
        """
        stated = stated or {}
        is_volume = study is not None and study.images[0].is_volume
        is_known = self._is_known(features, is_volume, "modality" in stated)
        fields: dict[str, FieldValue] = {}
        chances: dict[str, Mapping[str, float]] = {}
        several = study is not None and len(study.images) > 1
        for name, entry in FIELDS.items():
            if name in stated:
                fields[name] = FieldValue(stated[name], None, "file")
                chances[name] = {stated[name]: 1.0}
                continue
            head = self.fields.get(name)
            if head is None:
                continue
            unknown = [need for need in entry.applies_to if fields[need].value is None]
            if any(
                fields[need].value not in values
                for need, values in entry.applies_to.items()
                if need not in unknown
            ):
                continue
            if not is_known:
                fields[name] = FieldValue(None, None, "picture", UNKNOWN_PICTURE)
            elif unknown:
                reason = f"The {FIELDS[unknown[0]].label} is not known."
                fields[name] = FieldValue(None, None, "picture", reason)
            elif entry.flips and several:
                fields[name] = FieldValue(None, None, "picture", "There are several pictures.")
            else:
                chances[name] = head.chances(features)
                fields[name] = _named(head, chances[name])
        one_picture = len(features["pooled"]) == 1 and not is_volume
        findings = self._findings(features) if one_picture and is_known else {}
        return Reading(fields, findings, chances, is_known, features["pooled"].mean(0))

    def _is_known(
        self, features: Mapping[str, np.ndarray], is_volume: bool, modality_is_stated: bool
    ) -> bool:
        """Whether a study's pictures are like the training pictures, and of the modality that would be named."""
        share, limit = (_OF_THE_SLICES, _VOLUME_LIMIT) if is_volume else (0.5, 1.0)
        if np.quantile(self.nearness.strangeness(features), share) > limit:
            return False
        if modality_is_stated:
            return True
        head = self.fields["modality"]
        chances = head.chances(features)
        best = max(chances, key=chances.__getitem__)
        nearest = self.nearness.nearest_kinds(features)
        return best in nearest or chances[best] >= _SURE_AGAINST_NEAREST

    def _findings(self, features: Mapping[str, np.ndarray]) -> dict[str, FindingValue]:
        """Return the findings of the nearest set, if the picture lies within that set's limit."""
        distances = self.nearness.to_sets(features)[0]
        nearest = int(distances.argmin())
        if distances[nearest] > 1:
            return {}
        return {
            each.finding: FindingValue(each.chances(features)["yes"], each.limit)
            for each in self.finding_heads
            if each.set == self.nearness.names[nearest]
        }

    def answer(self, study: Study, question: Question) -> FieldAnswer | None:
        """Answer a question that asks for a field or a finding, or compose a caption or report.

        Returns
        -------
        FieldAnswer or None
            None if the question asks for anything else.
        """
        if question.task == "vqa" and asked_for(question.text or "", self.finding_names) is None:
            return None  # without a look at the study
        return self.answer_from(self.reading(study, question.region), question)

    def answer_from(self, found: Reading, question: Question) -> FieldAnswer | None:
        """Answer a question from what is known of a study, as `answer` does."""
        if question.task != "vqa":
            text = compose(found.fields, question.task, found.findings)
            return FieldAnswer(text, None, question.task)
        asked = asked_for(question.text or "", self.finding_names)
        if asked is None:
            return None
        if asked.findings:
            return self._about_finding(found, asked)
        return self._yes_or_no(found, asked) if asked.wanted else self._open(found, asked)

    def _about_finding(self, found: Reading, asked: Asked) -> FieldAnswer:
        known = [name for name in asked.findings if name in found.findings]
        if not known:
            sets = sorted(
                {each.limit for each in self.finding_heads if each.finding in asked.findings}
            )
            return _silent(
                "finding", f"It was {sets[0]}; this picture is not like those." if sets else ""
            )
        value = found.findings[known[0]]
        present = value.probability >= 0.5
        confidence = value.probability if present else 1 - value.probability
        return FieldAnswer(
            "Yes" if present else "No",
            confidence,
            "finding",
            reason=f"{value.limit[0].upper()}{value.limit[1:]}.",
        )

    def _open(self, found: Reading, asked: Asked) -> FieldAnswer:
        name = str(asked.field)
        if name == "plane" and "plane" not in found.fields and "projection" in found.fields:
            name = "projection"
        value = found.fields.get(name)
        if value is None:
            return _silent(name, _does_not_apply(name, found))
        if value.value is None:
            return _silent(name, value.reason)
        if value.source == "picture" and not self.fields[name].is_competent:
            return _silent(name, "On held-out pictures its answers did not depend on the picture.")
        text = WORDS.get((name, value.value), value.value)
        return FieldAnswer(f"{text[0].upper()}{text[1:]}", value.probability, name, value.source)

    def _yes_or_no(self, found: Reading, asked: Asked) -> FieldAnswer:
        chance, sources = 1.0, set()
        for name, wanted in asked.wanted.items():
            value = found.fields.get(name)
            modality = found.fields.get("modality")
            if value is None:
                if modality is None or modality.value is None or name in ("contrast", "side"):
                    return _silent(asked.kind, _does_not_apply(name, found))
                chance, sources = 0.0, {modality.source}
                continue
            if value.value is None:
                return _silent(asked.kind, value.reason)
            if value.source == "picture" and not self.fields[name].is_competent:
                return _silent(
                    asked.kind, "On held-out pictures its answers did not depend on the picture."
                )
            chance *= found.chances[name].get(wanted, 0.0)
            sources.add(value.source)
        source = "picture" if "picture" in sources else "file"
        confidence = max(chance, 1 - chance) if source == "picture" else None
        return FieldAnswer("Yes" if chance >= 0.5 else "No", confidence, asked.kind, source)


def _silent(kind: str, reason: str) -> FieldAnswer:
    return FieldAnswer(CANNOT_TELL, None, kind, silent=True, reason=reason)


def _does_not_apply(name: str, found: Reading) -> str:
    modality = found.fields["modality"].value if "modality" in found.fields else None
    needed = " or ".join(FIELDS[name].applies_to.get("modality", ()))
    return (
        f"The {FIELDS[name].label} is known for {needed} only; this is {modality or 'not known'}."
    )


def _named(head: FieldHead, chances: Mapping[str, float]) -> FieldValue:
    best = max(chances, key=chances.__getitem__)
    if chances[best] < head.sure:
        return FieldValue(None, None, "picture", "The picture does not decide it.")
    return FieldValue(best, chances[best], "picture")
