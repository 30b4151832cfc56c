"""The volumes of a series: group frames by the header elements that differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from radfound.reading.dicom.kinds import (
    CIRCUMSTANCES,
    KINDS,
    TRIGGER,
    Trait,
    acquired,
    are_of_one_kind,
    dimensions,
    number_in_series,
    split,
)
from radfound.reading.dicom.stack import check_one_each, describe, places_of, stacks_of
from radfound.reading.dicom.types import Frame
from radfound.reading.values import choose_volume


@dataclass(frozen=True)
class Volume:
    """Frames of one volume, and the traits that distinguish them in their series, in words."""

    words: tuple[str, ...]
    frames: Sequence[Frame]


def arrange(frames: Sequence[Frame], name: str, volume: int | None) -> list[Frame]:
    """Return the slices of one volume, sorted by position along their normal.

    Parameters
    ----------
    frames : sequence of Frame, all with position and direction
    name : str
        The series, for messages.
    volume : int or None
        Index, if a series holds several: directions, components, echoes, diffusion weights,
        energies, phases.

    Raises
    ------
    GeometryError
        If a slice differs in size, direction or spacing from all others, some positions hold more
        slices than others, or the slices at one position cannot be told apart.
    StudyAmbiguousError
        If there are several volumes and none was chosen.
    """
    stacks = stacks_of(frames)
    volumes = [
        Volume((describe(stack), *found.words) if len(stacks) > 1 else found.words, found.frames)
        for stack in stacks
        for found in volumes_of(stack)
    ]
    names = [", ".join(found.words) for found in volumes]
    chosen = volumes[choose_volume(len(volumes), volume, name, names)]
    places = places_of(chosen.frames)
    check_one_each(places, name)
    return [frame for (frame,) in places]


def volumes_of(frames: Sequence[Frame]) -> list[Volume]:
    """Split parallel frames into volumes with one frame per position; by order only if unambiguous."""
    volumes = [Volume((), frames)]
    if not are_of_one_kind(frames):
        for trait in KINDS:
            if len({value for value in map(trait.read, frames) if value is not None}) > 1:
                volumes = [part for found in volumes for part in _parts(found, trait)]
    return [part for found in volumes for part in _one_frame_a_place(found)]


def _parts(volume: Volume, trait: Trait) -> list[Volume]:
    groups = split(volume.frames, trait)
    return [Volume((*volume.words, trait.label(value)), group) for value, group in groups.items()]


def _one_frame_a_place(volume: Volume) -> list[Volume]:
    """Split frames at the same positions by a trait that differs, else by their order in time."""
    places = places_of(volume.frames)
    if len(places) == len(volume.frames):
        return [volume]
    for trait in (*KINDS, *CIRCUMSTANCES, *dimensions(volume.frames[0])):
        parts = _parts(volume, trait)
        if len(parts) > 1 and _tells_apart(parts, places):
            return [piece for part in parts for piece in _one_frame_a_place(part)]
    return _by_time(volume, places) or [volume]


def _tells_apart(parts: Sequence[Volume], places: Sequence[Sequence[Frame]]) -> bool:
    """Whether each part covers every position, or the parts separate the frames of the fullest one."""
    if all(_covers(part.frames, places) for part in parts):
        return True
    fullest = max(len(place) for place in places)
    return len(parts) == fullest and all(
        len(places_of(part.frames)) == len(part.frames) for part in parts
    )


def _covers(frames: Sequence[Frame], places: Sequence[Sequence[Frame]]) -> bool:
    """Whether every position has the same number of these frames."""
    mine = {id(frame) for frame in frames}
    return len({sum(id(frame) in mine for frame in place) for place in places}) == 1


def _by_time(volume: Volume, places: Sequence[Sequence[Frame]]) -> list[Volume]:
    """Split by order: by trigger time at each position, else in sweeps over all positions."""
    size = len(places[0])
    if any(len(place) != size for place in places):
        return []
    ranked = [_in_order(place, TRIGGER.read) for place in places]
    if all(ranked):
        words = [f"phase {index + 1} of {size} by trigger time" for index in range(size)]
        return _volumes(volume, zip(*ranked, strict=True), words)
    for read, order in ((acquired, "time of acquisition"), (number_in_series, "instance number")):
        sweeps = _sweeps(volume.frames, places, read)
        if sweeps:
            words = [f"time {index + 1} of {size} by {order}" for index in range(size)]
            return _volumes(volume, sweeps, words)
    return []


def _volumes(volume: Volume, groups: Iterable, words: Sequence[str]) -> list[Volume]:
    return [Volume((*volume.words, word), group) for group, word in zip(groups, words, strict=True)]


def _in_order(frames: Sequence[Frame], read: Callable[[Frame], Any]) -> list[Frame]:
    """Sort frames by a value; empty if a value is missing or occurs twice."""
    keys = {id(frame): read(frame) for frame in frames}
    if None in keys.values() or len(set(keys.values())) < len(frames):
        return []
    return sorted(frames, key=lambda frame: keys[id(frame)])


def _sweeps(
    frames: Sequence[Frame], places: Sequence[Sequence[Frame]], read: Callable[[Frame], Any]
) -> list[list[Frame]]:
    """Cut frames, sorted by a value, into runs with one frame per position; empty if impossible."""
    keys = {id(frame): read(frame) for frame in frames}
    if None in keys.values():
        return []
    ordered = sorted(frames, key=lambda frame: keys[id(frame)])
    starts = range(0, len(frames), len(places))
    if any(keys[id(ordered[at - 1])] == keys[id(ordered[at])] for at in starts[1:]):
        return []
    sweeps = [ordered[at : at + len(places)] for at in starts]
    return sweeps if all(_covers(sweep, places) for sweep in sweeps) else []
