"""Reports for the archive, made from answers and corrections."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from radfound.correction import Correction, utc_now
from radfound.exceptions import NotFoundError, RadFoundError, RequestError
from radfound.fields.compose import NOT_JUDGED
from radfound.question import Answer, ModelVersion, split_report
from radfound.records.answers import AnswerJournal
from radfound.reporting.identifiers import instance_uid
from radfound.reporting.parametric_map import evidence_map, in_order, map_uid
from radfound.reporting.report import (
    Document,
    Reader,
    ReportText,
    draft_report,
    reader_report,
)
from radfound.study.region import Box, Plane

from .datastore import PacsDatastore
from .delivery import packed
from .records import DELIVERED, Outgoing, PacsRecords

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from radfound.study.evidence_map import Evidence

DRAFT, READER, MAP = "draft", "reader", "map"
_SENT = ("report", "caption")
_REMEMBERED = 1000

Explain = Callable[[Answer], "Evidence"]
"""Returns the evidence maps of an answer."""


class NotAllowedError(RadFoundError):
    """The server was started without the permission to write into the archive."""

    code = "pacs_write_not_allowed"
    http_status = 403


class RecentAnswers(AnswerJournal):
    """The journal of answers, which also remembers the newest reports, so that they can be sent.

    The journal on the disk holds no text of an answer.

    Parameters
    ----------
    path : Path
    records : PacsRecords
        Keeps which series each report was about.
    """

    def __init__(self, path: Path, records: PacsRecords):
        super().__init__(path)
        self._records = records
        self._newest: OrderedDict[str, Answer] = OrderedDict()
        self._guard = threading.Lock()

    def record(self, answer: Answer, region: Box | Plane | None) -> None:
        """Record an answer, and remember it if it can be sent."""
        super().record(answer, region)
        if answer.task not in _SENT or not answer.series:
            return
        self._records.note_shown(answer)
        with self._guard:
            self._newest[answer.id] = answer
            if len(self._newest) > _REMEMBERED:
                self._newest.popitem(last=False)

    def newest(self, answer_id: str) -> Answer | None:
        """Return a remembered report or caption."""
        with self._guard:
            return self._newest.get(answer_id)


class Reports:
    """Makes documents from answers and corrections, and puts them into the outbox.

    Parameters
    ----------
    store : PacsDatastore
    records : PacsRecords
    answers : RecentAnswers
    explain : callable
        See `Explain`.
    """

    def __init__(
        self,
        store: PacsDatastore,
        records: PacsRecords,
        answers: RecentAnswers,
        explain: Explain,
    ):
        self._store = store
        self._records = records
        self._answers = answers
        self._explain = explain

    def send_answer(self, answer_id: str) -> Outgoing:
        """Put a draft into the outbox.

        Raises
        ------
        NotAllowedError
            Unless `pacs_write` is draft.
        NotFoundError
            If the answer is unknown, or was given before the server was started.
        RequestError
            If it is neither a report nor a caption.
        """
        self.check_allowed(DRAFT)
        known = self._records.document(instance_uid(answer_id))
        if known is not None:
            return known
        return self._records.add_document(*self.draft(self._answer(answer_id)))

    def send_map(self, answer_id: str) -> Outgoing:
        """Put the evidence map of a draft, over its first series, into the outbox.

        Raises
        ------
        NotAllowedError, NotFoundError
            As `send_answer`.
        RequestError
            If the first series is no stack of slices.
        """
        self.check_allowed(DRAFT)
        known = self._records.document(map_uid(answer_id))
        if known is not None:
            return known
        answer = self._answer(answer_id)
        evidence = self._explain(answer)
        headers = in_order(self._headers_of(answer.series[0]), evidence.affines[0])
        values = evidence.maps[0] / 255.0
        is_own_text = answer.evidence_note is None
        made = evidence_map(answer_id, values, headers, answer.model, is_own_text)
        return self._records.add_document(*_outgoing(answer_id, MAP, made))

    def _answer(self, answer_id: str) -> Answer:
        answer = self._answers.newest(answer_id) or self._records.draft_of(answer_id)
        if answer is None:
            raise NotFoundError(
                "answer_id: no report or caption of this id about a study of the archive is remembered; "
                "only reports and captions can be sent; ask for it again, or send a correction"
            )
        return answer

    def draft(self, answer: Answer) -> tuple[Outgoing, bytes]:
        """Return the document of a draft, and its content."""
        document = Document(
            answer.id,
            self._text(answer.text, answer.sections),
            answer.model,
            self._evidence(answer.images, answer.series),
            self._store.settings.language,
        )
        return _outgoing(answer.id, DRAFT, draft_report(document))

    def send_correction(self, correction: Correction) -> Outgoing:
        """Put a reader's accepted or edited report into the outbox.

        Raises
        ------
        NotAllowedError
            If `pacs_write` is no.
        RequestError
            If it is neither a report nor a caption, was rejected, or was accepted although it judges nothing.
        """
        self.check_allowed(READER)
        known = self._records.document(instance_uid(correction.id))
        if known is not None:
            return known
        if correction.task not in _SENT:
            raise RequestError(
                f"correction_id: of a {correction.task} answer; only reports and captions are sent"
            )
        if correction.verdict == "rejected" or not correction.text.strip():
            raise RequestError("correction_id: the report was rejected, so there is none to send")
        if correction.verdict == "accepted" and NOT_JUDGED in correction.text:
            raise RequestError(
                "correction_id: the report says that findings cannot be judged, so it is none to sign; write them first"
            )
        shown = self._records.shown(correction.answer_id) if correction.answer_id else None
        images, series = shown or (correction.images, ())
        model = correction.model or ModelVersion("radfound", "unknown")
        document = Document(
            correction.id,
            self._text(correction.text, None),
            model,
            self._evidence(images, series),
            self._store.settings.language,
        )
        reader = Reader(correction.author, self._store.settings.organization, correction.verdict)
        made = reader_report(document, reader, self._draft_of(correction))
        return self._records.add_document(*_outgoing(correction.id, READER, made))

    def check_allowed(self, kind: str) -> None:
        """Raise NotAllowedError unless this kind of document may be sent."""
        allowed = {"no": (), "reader": (READER,), "draft": (READER, DRAFT)}
        write = self._store.settings.write
        if kind not in allowed[write]:
            raise NotAllowedError(
                f"pacs_write: found {write!r}, so no {kind}'s report is written into the archive; start "
                f"the server with --conf pacs_write {kind}"
            )

    def _text(self, text: str, sections: dict[str, str] | None) -> ReportText:
        found = sections or split_report(text) or {"findings": text, "impression": ""}
        return ReportText(found.get("findings", ""), found.get("impression", ""))

    def _draft_of(self, correction: Correction) -> Dataset | None:
        """Return the references of the draft that a correction replaces, if it is in the archive."""
        from pydicom.dataset import Dataset

        known = (
            self._records.document(instance_uid(correction.answer_id))
            if correction.answer_id
            else None
        )
        # One that waits is delivered before the correction.
        if known is None or known.state not in (DELIVERED, "waiting"):
            return None
        references = Dataset()
        references.SOPClassUID = known.class_uid
        references.SOPInstanceUID = known.instance_uid
        references.SeriesInstanceUID = known.series_uid
        references.StudyInstanceUID = known.study_uid
        return references

    def _evidence(self, images: Sequence[str], series: Sequence[str]) -> list[Dataset]:
        """Return the headers of the images that a text is about, those of the first study first."""
        found: list[Dataset] = []
        if series:
            for uid in series:
                found += self._headers_of(uid)
        else:
            for image in images:
                found += _headers(self._store.parts(image).paths)
        if not found:
            raise RequestError(
                "images: not of the archive; only reports about its studies can be sent to it"
            )
        return found

    def _headers_of(self, series_uid: str) -> list[Dataset]:
        # What was shown is here, so that a report can wait for an archive that is down.
        fetched = self._store.cache.find(series_uid)
        return _headers([fetched] if fetched else self._store.parts(series_uid).paths)


def _headers(paths: Sequence[Path]) -> list[Dataset]:
    """Return the headers of the instances in fetched folders, by instance number."""
    import pydicom

    found = [
        pydicom.dcmread(file, stop_before_pixels=True)
        for path in paths
        if path.is_dir()
        for file in path.glob("*.dcm")
    ]
    return sorted(
        found, key=lambda header: (int(header.get("InstanceNumber") or 0), header.SOPInstanceUID)
    )


def _outgoing(document_id: str, kind: str, made: Dataset) -> tuple[Outgoing, bytes]:
    document = Outgoing(
        made.SOPInstanceUID,
        document_id,
        kind,
        made.StudyInstanceUID,
        made.SeriesInstanceUID,
        made.SOPClassUID,
        utc_now(),
    )
    return document, packed(made)
