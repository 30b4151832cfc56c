"""Reports as Enhanced SR of template TID 2000: a model's draft, and a reader's verified report."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from radfound.exceptions import RequestError
from radfound.optional import library
from radfound.question import ModelVersion

from .codes import DOCUMENT, FINDINGS, IMPRESSION, PROCESSING_EQUIPMENT, language_of, procedure_of
from .identifiers import device_uid, instance_uid, series_uid, software_version

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MANUFACTURER = "RadFound project"
DRAFT_DESCRIPTION = "RadFound draft (AI, not verified)"
READER_DESCRIPTION = "Report, verified by a reader, from an AI draft"

_UTF_8 = "ISO_IR 192"
_NAME_CHARS = 64
_DRAFT_SERIES, _READER_SERIES = 9001, 9002
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b\x0e-\x1f\x7f]"
)  # DICOM's texts hold no others than TAB, LF, FF, CR
_CLEARED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True)
class ReportText:
    """The text of a report; a report without headings is all findings.

    Parameters
    ----------
    findings, impression : str
    """

    findings: str
    impression: str = ""


@dataclass(frozen=True)
class Document:
    """What is common to all reports.

    Parameters
    ----------
    id : str
        Id of the answer or correction, which decides all identifiers of the document.
    text : ReportText
    model : ModelVersion
        Model that wrote the text, or the text that the reader judged.
    evidence : sequence of Dataset
        Headers of the images that the text is about, without pixels; at least one.
    language : str
        A tag of `codes.LANGUAGES`.
    """

    id: str
    text: ReportText
    model: ModelVersion
    evidence: Sequence[Dataset]
    language: str = "en"


@dataclass(frozen=True)
class Reader:
    """Who verified a report.

    Parameters
    ----------
    name : str
    organization : str
        Empty for the institution in the images' headers.
    """

    name: str
    organization: str = ""


def draft_report(document: Document) -> Dataset:
    """Return a model's draft: preliminary, unverified, observed by a device.

    Returns
    -------
    Dataset
        A whole SOP instance with file meta information.

    Raises
    ------
    RequestError
        If there is no text or no evidence.
    """
    from pydicom.sr.codedict import codes

    sr = library("highdicom.sr", "server")
    attributes = sr.DeviceObserverIdentifyingAttributes(
        uid=device_uid(document.model),
        name="RadFound",
        manufacturer_name=MANUFACTURER,
        model_name=document.model.name[:64],
    )
    observer = sr.ObserverContext(codes.DCM.Device, attributes)
    made = _report(
        document,
        observer,
        series_number=_DRAFT_SERIES,
        series_description=DRAFT_DESCRIPTION,
        is_final=False,
        is_verified=False,
    )
    made.AuthorObserverSequence = [_author_device(document.model)]
    return made


def reader_report(
    document: Document, reader: Reader, predecessor: Dataset | None = None
) -> Dataset:
    """Return a reader's report: final, verified, observed by a person.

    Parameters
    ----------
    document : Document
    reader : Reader
    predecessor : Dataset, optional
        The draft in the archive that this report replaces: its SOP class, SOP instance, series and study
        UIDs.

    Returns
    -------
    Dataset

    Raises
    ------
    RequestError
        If there is no text or no evidence.
    """
    from pydicom.sr.codedict import codes

    sr = library("highdicom.sr", "server")
    name = person_name(reader.name)
    observer = sr.ObserverContext(
        codes.DCM.Person, sr.PersonObserverIdentifyingAttributes(name=name)
    )
    first = document.evidence[0] if document.evidence else {}
    organization = reader.organization or str(first.get("InstitutionName") or "") or "Not stated"
    made = _report(
        document,
        observer,
        series_number=_READER_SERIES,
        series_description=READER_DESCRIPTION,
        is_final=True,
        is_verified=True,
        verifying_observer_name=name,
        verifying_organization=organization[:64],
        previous_versions=[predecessor] if predecessor is not None else None,
    )
    made.AuthorObserverSequence = [_author_person(name)]
    return made


def person_name(author: str) -> str:
    """Return a free text as a DICOM person name: the family name, unless it has components already."""
    text = " ".join(re.sub(r"[\\=\x00-\x1f]", " ", author).split())[: _NAME_CHARS - 1]
    return text if "^" in text else f"{text}^"


def _report(document: Document, observer: Any, **values: Any) -> Dataset:
    sr = library("highdicom.sr", "server")
    if not document.evidence:
        raise RequestError("images: found none; a report names the images that it is about")
    if not (document.text.findings.strip() or document.text.impression.strip()):
        raise RequestError("text: found nothing; expected a report")
    evidence = [completed(header) for header in document.evidence]
    made: Dataset = sr.EnhancedSR(
        evidence=evidence,
        content=_content(document, observer),
        series_instance_uid=series_uid(document.id),
        sop_instance_uid=instance_uid(document.id),
        instance_number=1,
        is_complete=True,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=document.model.name[:64],
        software_versions=software_version(document.model)[:64],
        device_serial_number=document.model.revision[:64],
        **values,
    )
    restore(made, document.evidence[0])
    contribution = (
        "Draft generated by a vision-language model; the text is a reader's"
        if values["is_verified"]
        else "Text generated by a vision-language model; not verified"
    )
    made.ContributingEquipmentSequence = [contributing_equipment(document.model, contribution)]
    made.SpecificCharacterSet = _UTF_8  # highdicom sets none, and other letters would become "?"
    return made


def _content(document: Document, observer: Any) -> Any:
    from pydicom.sr.codedict import codes

    sr = library("highdicom.sr", "server")
    relation = sr.RelationshipTypeValues
    items = sr.ContentSequence()
    language = sr.CodedConcept(*language_of(document.language))
    items.extend(sr.LanguageOfContentItemAndDescendants(language))
    items.extend(observer)
    modalities = dict.fromkeys(str(header.get("Modality") or "") for header in document.evidence)
    items.append(
        sr.CodeContentItem(
            name=codes.DCM.ProcedureReported,
            value=sr.CodedConcept(*procedure_of(modalities)),
            relationship_type=relation.HAS_CONCEPT_MOD,
        )
    )
    for (heading, element), text in (
        (FINDINGS, document.text.findings),
        (IMPRESSION, document.text.impression),
    ):
        if not text.strip():
            continue
        section = sr.ContainerContentItem(
            name=sr.CodedConcept(*heading), relationship_type=relation.CONTAINS
        )
        item = sr.TextContentItem(
            name=sr.CodedConcept(*element),
            value=_CONTROLS.sub(" ", text.strip()),
            relationship_type=relation.CONTAINS,
        )
        section.ContentSequence = sr.ContentSequence([item])
        items.append(section)
    root = sr.ContainerContentItem(name=sr.CodedConcept(*DOCUMENT), template_id="2000")
    root.ContentSequence = items
    return root


def completed(header: Dataset) -> Dataset:
    """Return a header with the elements that highdicom needs; de-identified studies lack some."""
    found = copy.copy(header)
    for keyword in _CLEARED:
        if keyword not in found:
            setattr(found, keyword, "")
    for keyword in ("PatientName", "ReferringPhysicianName"):
        value = str(found[keyword].value or "")
        # highdicom refuses a name without components; `restore` puts the original back.
        setattr(found, keyword, value if not value or "^" in value else f"{value}^")
    return found


def restore(made: Dataset, header: Dataset) -> None:
    """Copy patient and study as they are in the images, as text, so that the character set fits."""
    for keyword in _CLEARED:
        value = header.get(keyword)
        setattr(made, keyword, "" if value is None else str(value))
    for element in made:
        if element.VR == "PN" and element.value:
            element.value = str(element.value)


def contributing_equipment(model: ModelVersion, contribution: str) -> Dataset:
    """Return the item of Contributing Equipment that IHE AI Results asks for."""
    from pydicom.dataset import Dataset

    sr = library("highdicom.sr", "server")
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [sr.CodedConcept(*PROCESSING_EQUIPMENT)]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = model.name[:64]
    item.SoftwareVersions = software_version(model)[:64]
    item.DeviceUID = device_uid(model)
    item.ContributionDateTime = datetime.now().strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = contribution
    return item


def _author_device(model: ModelVersion) -> Dataset:
    from pydicom.dataset import Dataset

    author = Dataset()
    author.ObserverType = "DEV"
    author.StationName = "RADFOUND"
    author.DeviceUID = device_uid(model)
    author.Manufacturer = MANUFACTURER
    author.ManufacturerModelName = model.name[:64]
    author.InstitutionName = ""
    author.InstitutionCodeSequence = []
    return author


def _author_person(name: str) -> Dataset:
    from pydicom.dataset import Dataset

    author = Dataset()
    author.ObserverType = "PSN"
    author.PersonName = name
    author.PersonIdentificationCodeSequence = []
    author.InstitutionName = ""
    author.InstitutionCodeSequence = []
    return author
