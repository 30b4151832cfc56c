"""Radiology texts without images, to train the language model: the kit's text corpora."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from radfound.datasets.kit import Kit
from radfound.datasets.wording import report_text, sentences, tidy, whole_sentences

# Bibliography: links, "et al.", "2nd ed.", "Radiology 1999; 12:345".
_BIBLIOGRAPHY = re.compile(r"\bet al\b|www\.|https?:|\bed(?:ition)?\.,|\d{4};\s*\d+|\bpp?\. ?\d+")
_REMOVED = "XXXX"  # placeholder of Open-i's de-identification for a removed word


def radiology_texts(kit: Kit | str | Path) -> Iterator[str]:
    """Yield the texts of all corpora in turn, without the test split of any set.

    Parameters
    ----------
    kit : Kit, or path
        The data kit, or its folder.

    Yields
    ------
    str
        A report of Indiana University, a caption of ROCO, or a topic of MedPix, without sentences that
        de-identification damaged.

    Raises
    ------
    DatasetError
        If the folder holds no kit, or a file of the kit is missing.
    """
    kit = kit if isinstance(kit, Kit) else Kit(kit)
    for source in (iu_reports, roco_captions, medpix_topics):
        yield from source(kit)


def iu_reports(kit: Kit) -> Iterator[str]:
    """Yield reports on chest radiographs that are not in R2Gen's validation or test split."""
    for row in kit.rows("reports/iu_xray_text_only.jsonl"):
        if row["split"] in ("train", "unassigned"):
            found, concluded = _prose(row["findings"]), _prose(row["impression"])
            if text := report_text(found, concluded):
                yield text


def roco_captions(kit: Kit) -> Iterator[str]:
    """Yield captions of ROCO's validation split; the kit has none of its training split."""
    for row in kit.rows("text/roco_captions_text_only.jsonl"):
        if row["split"] != "test" and len(text := _prose(row["caption"])) >= 20:
            yield text


def medpix_topics(kit: Kit) -> Iterator[str]:
    """Yield disease discussions of MedPix's training cases.

    Topics that share title or text with a validation or test case are skipped.
    """
    cases = kit.rows("reports/medpix_cases.jsonl")
    training = {row["id"].removeprefix("medpix-") for row in cases if row["split"] == "train"}
    rows = kit.rows("text/medpix_topics.jsonl")
    held_out = {part for row in rows if row["case_id"] not in training for part in _identity(row)}
    for row in rows:
        if row["case_id"] in training and held_out.isdisjoint(_identity(row)):
            if text := _prose(row["text"]):
                title = tidy(row["title"]).rstrip(".")
                yield f"{title}. {text}" if title else text


def _identity(row: dict[str, Any]) -> set[str]:
    return {tidy(row["title"]).lower(), tidy(row["text"]).lower()} - {""}


def _prose(text: str | None) -> str:
    """Return the complete prose sentences of a text."""
    kept = [
        part
        for part in sentences(tidy(text))
        if _REMOVED not in part and not _BIBLIOGRAPHY.search(part) and len(part.split()) > 1
    ]
    return whole_sentences(kept, sys.maxsize)
