"""ROCO: radiology figures of open-access articles, with their captions, in the published layout."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from radfound.datasets.example import Example, Turn
from radfound.datasets.tables import ADVICE, check_split, existing, read_csv, read_fields
from radfound.datasets.wording import whole_sentences
from radfound.exceptions import DatasetError

logger = logging.getLogger(__name__)

CAPTION_LIMIT = 2000  # characters; a few captions are whole paragraphs


def read_roco(
    root: str | Path, split: str = "train", licences: tuple[str, ...] | None = None
) -> Iterator[Example]:
    """ROCO (Pelka et al. 2018), one example per figure; the official split.

    `scripts/fetch.py` of the set names images by article and figure; copies with images named by ROCO id work
    too. Figures whose download failed are skipped, and a warning counts them.

    Parameters
    ----------
    root : path
        Clone of github.com/razorx89/roco-dataset after `scripts/fetch.py`: the folder with `data/`.
    split : {"train", "validation", "test"}
    licences : tuple of str, optional
        Load only figures of these licences, such as ("CC BY", "CC BY-SA", "CC0").

    Raises
    ------
    DatasetError
        If the split's table is missing or malformed, or none of its images is there.
    """
    check_split(split, ("train", "validation", "test"), "ROCO")
    folder = existing(Path(root) / "data" / split / "radiology")
    images = existing(folder / "images")
    published = _published(folder, needed=licences is not None)
    missing = loaded = 0
    for _, (name, caption) in read_fields(folder / "captions.txt", "\t", 2):
        figure, licence = published.get(name, ("", ""))
        if licences is not None and licence not in licences:
            continue
        image = _image(images, figure, name)
        if image is None:
            missing += 1
            continue
        loaded += 1
        text = whole_sentences(caption, CAPTION_LIMIT)
        article = re.match(r"PMC\d+", figure)
        yield Example(
            article.group() if article else name,
            (image,),
            (Turn("caption", (), text, id=name),) if text else (),
            text=text,
            source="ROCO",
            split=split,
        )
    if missing and not loaded:
        raise DatasetError(
            f"{images}: none of the {missing} figures of captions.txt found; run scripts/fetch.py of the "
            f"set's repository, or check the folder; {ADVICE}"
        )
    if missing:
        logger.warning("%s: %d of %d figures are not there", images, missing, missing + loaded)


def _published(folder: Path, needed: bool) -> dict[str, tuple[str, str]]:
    """Return figure name (prefixed by the article) and licence by ROCO id."""
    licences = folder / "licences.txt"
    if licences.is_file() or needed:
        rows = read_csv(licences, ("ROCO_ID", "PMC_ID", "CC"))
        return {row["ROCO_ID"]: (row["PMC_ID"], row["CC"].strip()) for _, row in rows}
    links = folder / "dlinks.txt"
    if not links.is_file():
        return {}
    figures = {}
    for _, (name, command, figure) in read_fields(links, "\t", 3):
        article = re.search(r"(PMC\d+)\.tar\.gz", command)
        figures[name] = (f"{article.group(1)}_{figure}" if article else "", "")
    return figures


def _image(images: Path, figure: str, name: str) -> Path | None:
    candidates = [images / figure] if figure else []
    candidates.append(images / f"{name}.jpg")
    return next((path for path in candidates if path.is_file()), None)
