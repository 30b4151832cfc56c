"""A hash chain over rows: each row's link depends on every row before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_FAULTS_NAMED = 5


def link(previous: str, row: Mapping[str, Any]) -> str:
    """Return a row's link: SHA-256 over the link before it ("" at the start) and its content.

    Null columns are left out, so that a later layout may add columns.
    """
    content = {column: value for column, value in row.items() if value is not None}
    line = json.dumps(content, sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(f"{previous}\n{line}".encode("ascii")).hexdigest()


@dataclass(frozen=True)
class Linked:
    """One stored row: its number (1, 2, ...), its content and its link."""

    number: int
    row: Mapping[str, Any]
    link: str | None


@dataclass(frozen=True)
class Verification:
    """The result of verifying a chain.

    Parameters
    ----------
    rows : int
    unlinked : int
        Number of rows recorded before the chain began; the first link covers them together.
    head : str or None
        The newest link; None if no row has a link.
    faults : tuple of str
        Differences from what was recorded, one sentence each; empty if there are none.
    """

    rows: int
    unlinked: int
    head: str | None
    faults: tuple[str, ...] = field(default=())

    @property
    def is_whole(self) -> bool:
        """Whether every row is unchanged and in the order of recording."""
        return not self.faults


def verify(rows: Iterable[Linked], newest: int, noted: str | None = None) -> Verification:
    """Look for rows that were changed, removed or put in another order.

    Parameters
    ----------
    rows : iterable of Linked
        In the order of their numbers.
    newest : int
        The highest number ever assigned.
    noted : str, optional
        A head noted earlier, which must be among the links.

    Returns
    -------
    Verification
    """
    faults: list[str] = []
    count = unlinked = number = 0
    previous, head, known = "", None, set()
    for each in rows:
        if each.number != number + 1:
            faults.append(_missing(number + 1, each.number - 1))
        number, count = each.number, count + 1
        due = link(previous, each.row)
        if each.link is None and head is None:
            unlinked += 1
        elif each.link != due:
            faults.append(_changed(number, unlinked if head is None else 0))
        # Going on from the link that is there names each changed row, not all after the first.
        previous = each.link or due
        head = each.link or head
        known.add(each.link)
    if number != newest:
        faults.append(_missing(number + 1, newest))
    if noted is not None and noted not in known:
        faults.append("the head that was noted is not in the log: rows were removed or rewritten")
    if len(faults) > _FAULTS_NAMED:
        faults[_FAULTS_NAMED:] = [f"and {len(faults) - _FAULTS_NAMED} more"]
    return Verification(count, unlinked, head, tuple(faults))


def _changed(number: int, unlinked: int) -> str:
    if unlinked:
        return f"row {number}, or one of the {unlinked} before the chain began, was changed"
    return f"row {number} was changed, or is not where it was recorded"


def _missing(first: int, last: int) -> str:
    return f"row {first} is missing" if first == last else f"rows {first} to {last} are missing"
