"""The append-only record of ratings.

A rating is one value: a score, a preference, a comment, or a reader's agreement. A changed rating is another row,
and the newest row counts. `RatingStore.record` returns after the row is on the disk, so an acknowledged rating
survives a kill and a power cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from radfound.correction import utc_now
from radfound.exceptions import NotFoundError, RequestError
from radfound.reader_study.design.plan import SCALE, Item, Plan, Reader
from radfound.records.database import RATINGS, Database
from radfound.validation import is_storable

SCORE, PREFERENCE, COMMENT, AGREEMENT = "score", "preference", "comment", "agreement"
FIRST, SECOND, TIE = "first", "second", "tie"
YES, NO = "yes", "no"
MAX_COMMENT_CHARS = 5_000
MAX_SECONDS = 86_400.0

_COLUMNS = ("reader", "item", "candidate", "kind", "name", "value", "seconds", "created")
_LAYOUT = (
    """CREATE TABLE ratings (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        reader TEXT NOT NULL,
        item TEXT NOT NULL,
        candidate TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        seconds REAL NOT NULL,
        created TEXT NOT NULL
    )""",
    """CREATE TRIGGER ratings_are_not_changed BEFORE UPDATE ON ratings
        BEGIN SELECT RAISE(ABORT, 'ratings are append-only'); END""",
    """CREATE TRIGGER ratings_are_not_deleted BEFORE DELETE ON ratings
        BEGIN SELECT RAISE(ABORT, 'ratings are append-only'); END""",
    # INSERT OR REPLACE deletes without firing the trigger above
    """CREATE TRIGGER ratings_are_not_replaced BEFORE INSERT ON ratings
        WHEN EXISTS (SELECT 1 FROM ratings WHERE seq = NEW.seq)
        BEGIN SELECT RAISE(ABORT, 'ratings are append-only'); END""",
)


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One rating of one reader.

    Parameters
    ----------
    reader : str
    kind : {"score", "preference", "comment", "agreement"}
    value : str
        "score": "1" to "5". "preference": "first", "second" or "tie", of a pair in `Item.pairs`.
        "comment": the text, empty to withdraw it. "agreement" (whether this reader's ratings may be exported as
        corrections): "yes" or "no".
    item : str
        An item's id; empty for "agreement".
    candidate : str
        A candidate's id; for "preference" the first of the pair; empty for "agreement".
    name : str
        "score": the criterion's key. "preference": the second of the pair. Else empty.
    seconds : float
        Time for which the item was visible since it was opened or since its previous rating was sent, whichever is
        later; so the sum over an item's rows is the time spent on it.
    created : str
        ISO 8601 in UTC; now by default. The server sets it, not the browser.
    """

    reader: str
    kind: str
    value: str
    item: str = ""
    candidate: str = ""
    name: str = ""
    seconds: float = 0.0
    created: str = field(default_factory=utc_now)

    @property
    def subject(self) -> tuple[str, str, str, str, str]:
        """The rated subject; of two ratings with the same subject the newer counts."""
        return self.reader, self.item, self.candidate, self.kind, self.name


class RatingStore:
    """The ratings of a study, in its `ratings.sqlite`.

    Several threads and processes may use one file at once. The first rating creates the file.

    Parameters
    ----------
    plan : Plan
        The study, with its folder.

    Raises
    ------
    StorageError
        From every method, if the file is damaged, is something else, or cannot be written.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.path = Path(plan.ratings_path)
        self._file = Database(self.path, RATINGS, (_LAYOUT,))
        self._file.check()

    def record(self, rating: Rating) -> None:
        """Append a rating; on return the rating is on the disk.

        Raises
        ------
        NotFoundError
            If the reader, or the reader's item, candidate or criterion, does not exist.
        RequestError
            If the value is not valid for its kind.
        """
        check_rating(self.plan, rating)
        with self._file.connection(create=True) as connection:
            connection.execute(
                f"INSERT INTO ratings ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})",
                [getattr(rating, column) for column in _COLUMNS],
            )

    def rows(self, reader: str | None = None) -> list[Rating]:
        """Return every rating in the order of recording, of one reader or of all."""
        where, values = ("WHERE reader = ?", (reader,)) if reader is not None else ("", ())
        query = f"SELECT {', '.join(_COLUMNS)} FROM ratings {where} ORDER BY seq"
        found = self._file.rows(query, values)
        return [Rating(**dict(zip(_COLUMNS, row, strict=True))) for row in found]

    def latest(self, reader: str | None = None) -> list[Rating]:
        """Return the newest rating of each subject, ordered by the subject's first rating."""
        return newest(self.rows(reader))

    def has_agreed(self, reader: str) -> bool | None:
        """Return whether a reader's ratings may be exported as corrections; None if not answered yet."""
        for rating in self.latest(reader):
            if rating.kind == AGREEMENT:
                return rating.value == YES
        return None

    def complete(self, reader: Reader) -> set[str]:
        """Return the ids of a reader's items that have all required ratings."""
        given = {rating.subject for rating in self.latest(reader.id)}
        return {item.id for item in reader.items if not asked(self.plan, reader, item) - given}


def newest(ratings: Iterable[Rating]) -> list[Rating]:
    """Return the last rating of each subject, ordered by the subject's first rating."""
    return list({rating.subject: rating for rating in ratings}.values())


def asked(plan: Plan, reader: Reader, item: Item) -> set[tuple[str, str, str, str, str]]:
    """Return the `Rating.subject` of all required ratings of an item: scores and preferences."""
    subjects = {
        (reader.id, item.id, candidate.id, SCORE, criterion.key)
        for candidate in item.candidates
        for criterion in plan.criteria
    }
    if plan.pairwise:
        subjects |= {(reader.id, item.id, one, PREFERENCE, other) for one, other in item.pairs}
    return subjects


def check_rating(plan: Plan, rating: Rating) -> None:
    """Raise NotFoundError or RequestError if a rating does not fit the plan."""
    reader = plan.reader(rating.reader)
    if not 0 <= rating.seconds <= MAX_SECONDS:
        raise RequestError(f"seconds: found {rating.seconds}; expected 0 to {MAX_SECONDS:.0f}")
    if rating.kind == AGREEMENT:
        if rating.item or rating.candidate or rating.name:
            raise RequestError(
                "agreement: applies to the whole study; leave item, candidate and name out"
            )
        _check_value(rating, (YES, NO))
        return
    item = reader.item(rating.item)
    item.candidate(rating.candidate)
    if rating.kind == SCORE:
        plan.criterion(rating.name)
        _check_value(rating, tuple(str(point) for point in SCALE))
    elif rating.kind == PREFERENCE:
        if not plan.pairwise:
            raise RequestError("kind: this study asks for no preferences")
        if (rating.candidate, rating.name) not in item.pairs:
            raise NotFoundError("no such pair of texts; name the text shown first as candidate")
        _check_value(rating, (FIRST, SECOND, TIE))
    elif rating.kind == COMMENT:
        _check_comment(plan, rating)
    else:
        raise RequestError(
            f"kind: found {rating.kind[:40]!r}; expected {SCORE}, {PREFERENCE}, {COMMENT} or {AGREEMENT}"
        )


def _check_value(rating: Rating, values: tuple[str, ...]) -> None:
    if rating.value not in values:
        raise RequestError(
            f"value: found {rating.value[:40]!r}; a {rating.kind} is one of {', '.join(values)}"
        )


def _check_comment(plan: Plan, rating: Rating) -> None:
    if not plan.comment:
        raise RequestError("kind: this study asks for no comments")
    if rating.name:
        raise RequestError("name: a comment has none; leave it out")
    if len(rating.value) > MAX_COMMENT_CHARS:
        raise RequestError(
            f"value: found {len(rating.value):,} characters; at most {MAX_COMMENT_CHARS:,} fit"
        )
    if not is_storable(rating.value):
        raise RequestError("value: holds half a surrogate pair; expected valid Unicode")
