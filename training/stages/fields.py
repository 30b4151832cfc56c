"""Fit the heads of fields and findings to the frozen stem, measure them, and put them beside the checkpoint.

Run as `python -m training.stages.fields --data KIT --cache FOLDER --tables tables.md`. The kit's training split fits the heads, its
validation split chooses and calibrates, and both held-out splits are in the tables (`docs/fields.md`).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radfound.commands import run_command
from radfound.fields.catalogue import FIELDS
from radfound.fields.features import FrameFeatures, load_stem
from radfound.fields.heads import FieldHead, FindingHead
from radfound.fields.model import FieldModel
from radfound.model.checkpoints import shipped_folder
from training.fields.composed import composed_table
from training.fields.extract import extract
from training.fields.fit import (
    FINDING_PARTS,
    NOT_SHIPPED,
    Features,
    capped,
    columns,
    fit_field,
    fit_finding,
    fit_nearness,
)
from training.fields.measure import (
    Score,
    auroc,
    control_auroc,
    finding_auroc,
    finding_probability,
    held_out,
    measure_field,
    summary,
)
from training.fields.samples import Sample, kit_samples
from training.fields.strange import (
    KINDS,
    of_kind,
    picture_features,
    share_named,
    strange_pictures,
)

logger = logging.getLogger(__name__)

_MODEL = "radfound-mini"
_LEAST_AUROC = 0.65
_FEWEST_POSITIVE = 8
# Where more is needed than 0.5 for four of five named values to be right on the validation split.
_SURE = {"weighting": 0.65}
SETS: dict[str, str] = {
    "nih_cxr": "adults' chest films of NIH ChestX-ray14",
    "kermany_pediatric_cxr": "children's chest films of Kermany 2018",
    "busi": "breast ultrasound of BUSI",
    "lung_us": "lung ultrasound of POCUS",
    "brain_tumor_mri": "brain MR figures of Kaggle 2020",
    "sarscov2_ct": "chest CT figures of SARS-CoV-2 CT-scan",
    "head_ct_hemorrhage": "head CT figures of Kitamura",
    "kidney_ct": "kidney CT of Islam 2022",
    "mias": "mammograms of mini-MIAS",
}
"""The sets with findings, in words for people."""
# Labels that go with the source, scanner or window of a picture rather than with the patient: measured, not shipped.
_LEAKS = {
    ("brain_tumor_mri", "brain tumor"), ("sarscov2_ct", "covid-19 pneumonia"), ("busi", "breast mass"),
    ("lung_us", "pneumonia"),
}  # fmt: skip
# The complement of another label, or a label of pictures whose set says nothing about the rest.
_NO_FINDINGS = ("no brain tumor", "no covid-19", "benign", "a-lines")
_ACROSS = (("nih_cxr", "kermany_pediatric_cxr"), ("kermany_pediatric_cxr", "nih_cxr"))


def fit_all(
    samples: Sequence[Sample], values: Features, features: FrameFeatures, seeds: int
) -> tuple[FieldModel, dict[str, str]]:
    """Fit and measure all heads; return the model and the tables in Markdown, by name."""
    used = capped(samples, 0)
    blank = picture_features(np.zeros((256, 256), np.uint8), features)
    heads, fields = _fields(samples, values, blank, used, seeds)
    findings, finding_table = _findings(samples, values, seeds)
    model, tables = with_distance(samples, values, features, heads, findings)
    return model, {"fields": fields, "findings": finding_table} | tables


def with_distance(
    samples: Sequence[Sample],
    values: Features,
    features: FrameFeatures,
    heads: Mapping[str, FieldHead],
    findings: Sequence[FindingHead],
) -> tuple[FieldModel, dict[str, str]]:
    """Fit the test of distance beside some heads; return the model and the tables that depend on it."""
    used = capped(samples, 0)
    model = FieldModel(features, fit_nearness(samples, values, used, 0), heads, tuple(findings))
    controls = {
        name: picture_features(strange_pictures()[name], features) for name in ("blank", "noise")
    }
    return model, {
        "near": _near(model, samples, values),
        "strange": _strange(model, samples, values, used),
        "composed": composed_table(model, samples, values, controls),
    }


def _fields(
    samples: Sequence[Sample], values: Features, blank: Features, used: np.ndarray, seeds: int
) -> tuple[dict[str, FieldHead], str]:
    heads = {}
    lines = [
        "| field | n (patients) | right | balanced | validation / test | commonest answer | blank | another patient "
        "| least lead | calibration error | said | right where said | other draws |",
        "| --- |" * 1 + " --- |" * 12,
    ]
    for name in FIELDS:
        head, parts, penalty = fit_field(samples, values, name, used)
        draft = FieldHead(head, parts, _SURE.get(name, 0.5))
        found = measure_field(samples, values, name, draft, blank, used)
        heads[name] = FieldHead(head, parts, draft.sure, summary(found))
        draws = []
        for seed in range(1, seeds + 1):
            drawn, _, _ = fit_field(samples, values, name, redrawn(samples, used, seed), (penalty,))
            again = measure_field(samples, values, name, FieldHead(drawn, parts), blank, used)
            draws.append(f"{100 * again['accuracy'].value:.1f}")
        lines.append(_field_line(FIELDS[name].label, found, draws))
        logger.info("%s", lines[-1])
    return heads, "\n".join(lines)


def _field_line(label: str, found: dict[str, Any], draws: Sequence[str]) -> str:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    cells = (
        label, f"{found['n']} ({found['patients']})", found["accuracy"].per_cent(), found["balanced"].per_cent(),
        f"{share(found['validation'])} / {share(found['test'])}", share(found["question"]), share(found["blank"]),
        share(found["other"]), found["lead"].per_cent(), f"{found['calibration_error']:.3f}", share(found["said"]),
        share(found["right_where_said"]), ", ".join(draws),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def redrawn(samples: Sequence[Sample], used: np.ndarray, seed: int) -> np.ndarray:
    """Return the training pictures of a random two thirds of the patients."""
    chance = np.random.default_rng(seed)
    patients = sorted({s.patient for s, use in zip(samples, used, strict=True) if use})
    kept = set(chance.choice(patients, round(len(patients) * 2 / 3), replace=False).tolist())
    return used & np.array([sample.patient in kept for sample in samples])


def _findings(
    samples: Sequence[Sample], values: Features, seeds: int
) -> tuple[list[FindingHead], str]:
    sets = np.array([s.set for s in samples])
    held = held_out(samples)
    features = columns(values, FINDING_PARTS)
    shipped = []
    lines = [
        "| set | finding | n (with it; patients) | AUROC, by patient | projection, age, sex alone | other draws | across sets "
        "| spoken of |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for set_name, words in SETS.items():
        train = np.flatnonzero((sets == set_name) & ~held)
        test = np.flatnonzero((sets == set_name) & held)
        for finding in _names(samples, test):
            has = np.array([finding in (s.findings or ()) for s in samples])
            head = fit_finding(samples, values, set_name, finding, train)
            score = finding_auroc(samples, finding_probability(head, features[test]), test, finding)
            control = control_auroc(samples, finding, train, test)
            draws = []
            for seed in range(1, seeds + 1):
                rows = train[redrawn([samples[i] for i in train], np.ones(len(train), bool), seed)]
                drawn = fit_finding(samples, values, set_name, finding, rows)
                again = auroc(finding_probability(drawn, features[test]), has[test])
                draws.append(f"{again:.2f}")
            across = _across(samples, head, features, set_name, finding)
            verdict = _verdict(set_name, finding, score, control)
            if verdict == "yes":
                limit = f"learnt from {words}, AUROC {score.plain()}"
                measured = {"auroc": [round(v, 3) for v in (score.value, score.low, score.high)]}
                shipped.append(FindingHead(finding, set_name, head, FINDING_PARTS, limit, measured))
            patients = len({samples[i].patient for i in test})
            lines.append(
                f"| {set_name} | {finding} | {len(test)} ({has[test].sum()}; {patients}) | {score.plain()} | {control:.2f} "
                f"| {', '.join(draws)} | {across} | {verdict} |"
            )
            logger.info("%s", lines[-1])
    return shipped, "\n".join(lines)


def _names(samples: Sequence[Sample], rows: np.ndarray) -> list[str]:
    """Return the findings that are often enough present and absent in some pictures to be measured."""
    counts: dict[str, int] = {}
    for i in rows:
        for finding in samples[i].findings or ():
            counts[finding] = counts.get(finding, 0) + 1
    return sorted(
        name
        for name, count in counts.items()
        if _FEWEST_POSITIVE <= count <= len(rows) - _FEWEST_POSITIVE and name not in _NO_FINDINGS
    )


def _verdict(set_name: str, finding: str, score: Score, control: float) -> str:
    if score.low <= _LEAST_AUROC:
        return "no: lower bound"
    if set_name in NOT_SHIPPED:
        return "no: licence"
    if (set_name, finding) in _LEAKS:
        return "no: leak"
    if score.value <= control:
        return "no: control"
    return "yes"


def _across(
    samples: Sequence[Sample], head: Any, features: np.ndarray, set_name: str, finding: str
) -> str:
    found = []
    for source, target in _ACROSS:
        rows = np.array(
            [i for i, s in enumerate(samples) if s.set == target and s.split != "train"]
        )
        if source == set_name and any(finding in (samples[i].findings or ()) for i in rows):
            score = finding_auroc(samples, finding_probability(head, features[rows]), rows, finding)
            found.append(f"{target}: {score.plain()}")
    return ", ".join(found) or "-"


def _near(model: FieldModel, samples: Sequence[Sample], values: Features) -> str:
    """Return for each shipped set how many of its held-out and of other pictures are judged by its heads."""
    lines = [
        "| set | its held-out pictures that are judged | pictures of other sets that are judged |",
        "| --- | --- | --- |",
    ]
    rows = np.flatnonzero(held_out(samples))
    part = {name: each[rows] for name, each in values.items()}
    distances = model.nearness.to_sets(part)
    near = np.where(distances.min(1) <= 1, distances.argmin(1), -1)
    near[model.nearness.strangeness(part) > 1] = -1
    sets = np.array([samples[i].set for i in rows])
    for name in dict.fromkeys(each.set for each in model.finding_heads):
        judged = near == model.nearness.names.index(name)
        own = sets == name
        others = ", ".join(
            f"{other} {int((judged & (sets == other)).sum())} of {int((sets == other).sum())}"
            for other in sorted(set(sets[judged & ~own]))
        )
        lines.append(f"| {name} | {100 * judged[own].mean():.0f} % | {others or 'none'} |")
    return "\n".join(lines)


def _strange(
    model: FieldModel, samples: Sequence[Sample], values: Features, used: np.ndarray
) -> str:
    """Return the table of pictures of unknown kinds, and of kinds left out of training in turn."""
    lines = [
        "| picture | strangeness (known up to 1) | named with more than 0.5 |",
        "| --- | --- | --- |",
    ]
    for name, pixels in strange_pictures().items():
        part = picture_features(pixels, model.features)
        named = share_named(model, part, np.arange(1))
        lines.append(f"| {name} | {model.nearness.strangeness(part)[0]:.2f} | {named:.0f} |")
    for kind in KINDS:
        left = of_kind(samples, kind)
        without = used & ~left
        head, parts, _ = fit_field(samples, values, "modality", without, (0.01,))
        nearness = fit_nearness(samples, values, without, 0)
        blind = FieldModel(model.features, nearness, {"modality": FieldHead(head, parts)})
        rows = np.random.default_rng(0).permutation(np.flatnonzero(left))[:300]
        share = share_named(blind, values, rows)
        lines.append(
            f"| {kind}, left out of training, {len(rows)} pictures | - | {100 * share:.1f} % |"
        )
    rows = np.flatnonzero(held_out(samples) & np.array([s.set == "medpix" for s in samples]))
    named = 100 * share_named(model, values, rows)
    lines.append(f"| MedPix, held out, {len(rows)} pictures | - | {named:.1f} % |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data kit")
    parser.add_argument("--checkpoint", type=Path, default=shipped_folder(_MODEL))
    parser.add_argument("--out", type=Path, help="folder of the heads; by default the checkpoint's")
    parser.add_argument("--cache", type=Path, help="folder that keeps the features between runs")
    parser.add_argument("--tables", type=Path, help="file for the tables, in Markdown")
    parser.add_argument("--seeds", type=int, default=3, help="further draws of training patients")
    parser.add_argument(
        "--distance-only", action="store_true", help="fit the test of distance; keep the heads"
    )
    args = parser.parse_args()
    samples = kit_samples(args.data)
    features = FrameFeatures(load_stem(args.checkpoint))
    values = extract(samples, features, args.cache)
    if args.distance_only:
        kept = FieldModel.load(args.checkpoint, features.stem)
        model, tables = with_distance(samples, values, features, kept.fields, kept.finding_heads)
    else:
        model, tables = fit_all(samples, values, features, args.seeds)
    model.save(args.out or args.checkpoint)
    text = "\n\n".join(f"<!-- {name} -->\n{table}" for name, table in tables.items())
    if args.tables:
        args.tables.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    run_command(main)
