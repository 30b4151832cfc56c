"""Fit and calibrate the heads and the test of distance, on the training and validation splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from radfound.fields.catalogue import FIELDS
from radfound.fields.heads import Head
from radfound.fields.nearness import Kinds, Nearness, Subspace
from radfound.optional import library
from training.fields.samples import Sample

Features = Mapping[str, np.ndarray]

PARTS_OF: Mapping[str, tuple[str, ...]] = {"weighting": ("inner",), "side": ("sides",)}
"""Parts of the features that a field uses, where they are not `DEFAULT_PARTS`; chosen on the validation split."""
DEFAULT_PARTS = ("pooled",)
FINDING_PARTS = ("pooled",)
FINDING_C = 0.003
_PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3)
_MOST_OF_A_SET = 300  # so that one source does not outweigh the others
_MOST_FOR_REGION = 40
_SETS_OF = {
    "location": ("medpix",),
    "weighting": ("medpix",),
    "contrast": ("medpix",),
    "density": ("mias", "mias_crops"),
}
# Sets whose licence does not allow weights that are shipped.
NOT_SHIPPED = ("head_ct_hemorrhage", "kidney_ct")
_INNER_DIRECTIONS, _POOLED_DIRECTIONS = 64, 64
_REFERENCES, _MEDPIX_REFERENCES = 120, 600
_KEPT = 0.99  # share of a kind's held-out pictures within each limit, before all are scaled
_KNOWN = 0.97  # share of MedPix's held-out figures that are known; docs/fields.md has the curve
_FOLDS = 5
_FEWEST_TO_CALIBRATE = 40
# Its validation pictures are of too few patients to choose by.
_ALWAYS_CROSSED = ("weighting",)
# A set with fewer pictures than this has no limit of its own.
_FEWEST_OF_A_SET = 20


def columns(features: Features, parts: Sequence[str]) -> np.ndarray:
    """Return the named parts side by side, shape (N, D)."""
    return np.concatenate([np.asarray(features[part], np.float32) for part in parts], axis=1)


def capped(samples: Sequence[Sample], seed: int) -> np.ndarray:
    """Return which training pictures are used: all of MedPix, and at most so many of any other set."""
    chance = np.random.default_rng(seed)
    used = np.array([s.split == "train" and s.set not in NOT_SHIPPED for s in samples])
    sets = np.array([s.set for s in samples])
    for name in sorted(set(sets) - {"medpix"}):
        rows = np.flatnonzero(used & (sets == name))
        if len(rows) > _MOST_OF_A_SET:
            used[rows] = False
            used[chance.choice(rows, _MOST_OF_A_SET, replace=False)] = True
    return used


def field_rows(samples: Sequence[Sample], field: str) -> np.ndarray:
    """Return which pictures a field is fitted to or asked of."""
    sets = _SETS_OF.get(field)
    return np.array(
        [
            s.labels.get(field) in FIELDS[field].classes and (not sets or s.set in sets)
            for s in samples
        ]
    )


def joint_class(sample: Sample, field: str) -> str:
    """Return the class that a head learns: the field's, refined by other labels of the picture.

    The refinement makes the classes more alike within themselves; a head adds their probabilities up again.
    """
    labels = sample.labels
    refined: tuple[str, ...] = ()
    if field in ("region", "location"):
        refined = (labels.get("region", ""), labels.get("location", ""), labels.get("modality", ""))
    elif field == "weighting":
        refined = ("head" if labels.get("region") == "head" else "body",)
    return "|".join((labels[field], *refined))


def fit_field(
    samples: Sequence[Sample],
    features: Features,
    field: str,
    used: np.ndarray,
    penalties: Sequence[float] = _PENALTIES,
) -> tuple[Head, tuple[str, ...], float]:
    """Fit a field's head: on the validation split, the penalty by accuracy, then the temperature by loss.

    Where that holds fewer than 40 pictures of the field or too few patients (MR weighting), temperature and penalty come
    from a cross-validation over the patients of the training split.

    Returns
    -------
    head : Head
    parts : tuple of str
        Parts of the features that it takes.
    penalty : float
        The one chosen of `penalties`, as scikit-learn's C.
    """
    parts = PARTS_OF.get(field, DEFAULT_PARTS)
    rows = field_rows(samples, field)
    if field == "region":
        # Elsewhere the region goes with the modality: such pictures would outweigh the figures that have to be told apart.
        used = _fewer_of_each_set(samples, rows & used)
    train = np.flatnonzero(rows & used)
    check = np.flatnonzero(
        rows
        & np.array(
            [s.split == "validation" and (field != "region" or s.set == "medpix") for s in samples]
        )
    )
    values = columns(features, parts)
    target = np.array([joint_class(samples[i], field) for i in train])
    truth = np.array([s.labels.get(field, "") for s in samples])
    of_test = any(samples[i].split == "test" for i in np.flatnonzero(rows))
    scored = {}
    for c in penalties:
        if of_test and len(check) >= _FEWEST_TO_CALIBRATE and field not in _ALWAYS_CROSSED:
            head = fit_linear(values[train], target, c)
            logits, classes, right = head.logits(values[check]), head.classes, truth[check]
        else:
            patients = [samples[i].patient for i in train]
            classes, right = tuple(sorted(set(truth[train]))), truth[train]
            logits = _crossed(values[train], target, classes, patients, c)
        loss, temperature = fit_temperature(logits, classes, right)
        named = Head(classes, np.eye(len(classes), dtype=np.float32), np.zeros(len(classes)))
        answers = np.array(named.names)[named.probabilities(logits).argmax(1)]
        scored[c] = (float((answers != right).mean()), loss, temperature)
    best = min(penalties, key=lambda c: scored[c])
    head = fit_linear(values[train], target, best)
    return Head(head.classes, head.weight, head.bias, scored[best][2]), parts, best


def _fewer_of_each_set(samples: Sequence[Sample], used: np.ndarray) -> np.ndarray:
    """Return at most `_MOST_FOR_REGION` of the used pictures of each set but MedPix, evenly spaced."""
    sets = np.array([s.set for s in samples])
    kept = used & (sets == "medpix")
    for name in sorted(set(sets[used]) - {"medpix"}):
        rows = np.flatnonzero(used & (sets == name))
        kept[rows[:: max(1, len(rows) // _MOST_FOR_REGION)][:_MOST_FOR_REGION]] = True
    return kept


def fit_linear(values: np.ndarray, target: np.ndarray, penalty: float) -> Head:
    """Fit a logistic regression on standardised features; the scale is folded into its weights."""
    linear = library("sklearn.linear_model", "train")
    mean, scale = values.mean(0), values.std(0)
    scale = scale + 1e-3 * float(values.std()) + 1e-6
    model = linear.LogisticRegression(C=penalty, max_iter=300).fit((values - mean) / scale, target)
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scale
    classes = tuple(str(name).split("|")[0] for name in model.classes_)
    return Head(classes, weight.astype(np.float32), (bias - weight @ mean).astype(np.float32))


def _crossed(
    values: np.ndarray,
    target: np.ndarray,
    classes: Sequence[str],
    patients: Sequence[str],
    penalty: float,
) -> np.ndarray:
    """Return the logits of a cross-validation in five folds by patient, shape (N, len(classes))."""
    selection = library("sklearn.model_selection", "train")
    logits = np.full((len(values), len(classes)), -20.0)
    for fitted, left in selection.GroupKFold(5).split(values, target, patients):
        head = fit_linear(values[fitted], target[fitted], penalty)
        chances = head.probabilities(values[left])
        for column, name in enumerate(head.names):
            logits[left, list(classes).index(name)] = np.log(np.maximum(chances[:, column], 1e-9))
    return logits


def fit_temperature(
    logits: np.ndarray, classes: Sequence[str], truth: np.ndarray
) -> tuple[float, float]:
    """Return mean negative log-probability and the temperature at which it is least.

    Parameters
    ----------
    logits : float array, shape (N, C)
    classes : sequence of C str
        Classes with the same name are added up.
    truth : array of N str
    """
    right = np.array(classes)[None] == np.array(truth)[:, None]
    found = []
    for temperature in np.geomspace(0.25, 8, 61):
        odds = np.exp((logits - logits.max(1, keepdims=True)) / temperature)
        chance = (odds * right).sum(1) / odds.sum(1)
        found.append((float(-np.log(np.maximum(chance, 1e-6)).mean()), float(temperature)))
    return min(found)


def fit_finding(
    samples: Sequence[Sample], features: Features, set_name: str, finding: str, rows: np.ndarray
) -> Head:
    """Fit the head of a finding to pictures of one set; the temperature on its validation split.

    Parameters
    ----------
    rows : int array
        The training pictures, repetitions allowed.
    """
    values = columns(features, FINDING_PARTS)
    present = np.array([finding in (s.findings or ()) for s in samples])
    names = np.where(present, "yes", "no")
    head = fit_linear(values[rows], names[rows], FINDING_C)
    check = [i for i, s in enumerate(samples) if s.set == set_name and s.split == "validation"]
    _, temperature = fit_temperature(head.logits(values[check]), head.classes, names[check])
    return Head(head.classes, head.weight, head.bias, temperature)


def fit_nearness(
    samples: Sequence[Sample],
    features: Features,
    used: np.ndarray,
    seed: int,
    known: float = _KNOWN,
) -> Nearness:
    """Fit the test of distance to the training pictures, its limits by a cross-validation over their patients.

    `known` is the share of MedPix's figures that are known when their patients are left out: they differ most from one
    another, and are most like what people ask about.
    """
    draft = _without_limits(samples, features, used, seed)
    raw, kinds, rows = _crossed_distances(samples, features, used, draft.kinds.names, seed)
    typical, limits = np.median(raw, axis=0), np.quantile(raw, _KEPT, axis=0)
    typical, limits = (np.tile(each, (len(draft.kinds.names), 1)) for each in (typical, limits))
    for kind in range(len(draft.kinds.names)):
        if (own := kinds == kind).sum() >= _FEWEST_OF_A_SET:
            typical[kind] = np.median(raw[own], axis=0)
            limits[kind] = np.quantile(raw[own], _KEPT, axis=0)
    beyond = np.maximum((raw - typical[kinds]) / (limits - typical)[kinds], 0.0)
    of_medpix = np.array([samples[row].set == "medpix" for row in rows])
    length = float(np.quantile(np.sqrt((beyond[of_medpix] ** 2).sum(1)), known))
    return replace(draft, typical=typical, limits=typical + (limits - typical) * length)


def _crossed_distances(
    samples: Sequence[Sample],
    features: Features,
    used: np.ndarray,
    kinds: Sequence[str],
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distances and nearest kinds of training pictures whose patients were left out, with their row numbers."""
    rows = np.flatnonzero(used)
    names, numbers = np.unique([samples[row].patient for row in rows], return_inverse=True)
    fold_of = np.random.default_rng(seed).permutation(len(names))[numbers] % _FOLDS
    raw, nearest = np.empty((len(rows), 4)), np.empty(len(rows), dtype=int)
    for fold in range(_FOLDS):
        left = fold_of == fold
        fitted = used.copy()
        fitted[rows[left]] = False
        part = _without_limits(samples, features, fitted, seed)
        raw[left], kind = part.raw(rows_of(features, rows[left]))
        nearest[left] = [kinds.index(part.kinds.names[each]) for each in kind]
    return raw, nearest, rows


def _without_limits(
    samples: Sequence[Sample], features: Features, used: np.ndarray, seed: int
) -> Nearness:
    """Fit all of the test of distance but what is typical and its limits."""
    sets = np.array([s.set for s in samples])
    validation = np.array([s.split == "validation" for s in samples])
    inner = fit_subspace(np.asarray(features["inner"], np.float32)[used], _INNER_DIRECTIONS)
    pooled = fit_subspace(np.asarray(features["pooled"], np.float32)[used], _POOLED_DIRECTIONS)
    along, _ = inner.project(np.asarray(features["inner"], np.float32))
    chance = np.random.default_rng(seed)
    counts = {name: int((used & (sets == name)).sum()) for name in set(sets[used])}
    names = tuple(sorted(name for name, count in counts.items() if count >= _FEWEST_OF_A_SET))
    references: list[int] = []
    owners: list[int] = []
    spare: list[np.ndarray] = []
    for index, name in enumerate(names):
        rows = chance.permutation(np.flatnonzero(used & (sets == name)))
        kept = min(_MEDPIX_REFERENCES if name == "medpix" else _REFERENCES, int(0.8 * len(rows)))
        references += rows[:kept].tolist()
        owners += [index] * kept
        held = np.flatnonzero(validation & (sets == name))
        spare.append(held if len(held) >= _FEWEST_OF_A_SET else rows[kept:])
    modality = np.array([s.labels["modality"] for s in samples])
    kinds = fit_kinds(along[used], modality[used])
    parts = (inner, pooled, kinds, along[references], np.array(owners), names)
    no_limits = np.zeros((len(kinds.names), 4)), np.ones((len(kinds.names), 4))
    draft = Nearness(*parts, np.ones(len(names)), *no_limits)
    set_limits = [
        float(np.quantile(draft.to_sets(rows_of(features, rows))[:, index], 0.95))
        for index, rows in enumerate(spare)
    ]
    return replace(draft, set_limits=np.array(set_limits))


def fit_kinds(along: np.ndarray, kinds: np.ndarray) -> Kinds:
    """Fit the centres of kinds of pictures and their common shape to whitened coordinates (N, K)."""
    names = tuple(sorted(set(kinds)))
    centres = np.stack([along[kinds == name].mean(0) for name in names])
    rest = along - centres[np.searchsorted(names, kinds)]
    shape = rest.T @ rest / len(rest) + 1e-3 * np.eye(along.shape[1])
    turn = np.linalg.inv(np.linalg.cholesky(shape)).T
    return Kinds(names, turn.astype(np.float32), (centres @ turn).astype(np.float32))


def rows_of(features: Features, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the features of some pictures."""
    return {name: np.asarray(values[rows], np.float32) for name, values in features.items()}


def fit_subspace(values: np.ndarray, directions: int) -> Subspace:
    """Return the principal directions of features, shape (N, D)."""
    mean, scale = values.mean(0), values.std(0) + 1e-3
    standard = (values - mean) / scale
    sizes, vectors = np.linalg.eigh(standard.T @ standard / len(values))
    return Subspace(
        mean, scale, vectors[:, ::-1][:, :directions], np.sqrt(sizes[::-1][:directions])
    )
