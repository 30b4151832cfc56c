"""Wording: a department's style as a template, proposed from agreeing corrections and accepted by a person."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from radfound.correction import Correction
from radfound.question import Question
from radfound.teaching.questions import question_key

Fields = Callable[[Correction], Mapping[str, str]]
"""From a correction to what is known of its study, {field: value}; empty if nothing is."""

FEWEST = 2
_LONGEST = 2_000
# Values of fields that need no study which has them.
_COMMON = {
    "modality": frozenset({"ct", "mr", "mri", "x-ray", "radiograph", "ultrasound", "mammography"}),
    "plane": frozenset({"axial", "coronal", "sagittal"}),
}
_SPELLINGS = {
    "mri": ("MRI", "MR"),
    "x-ray": ("X-ray", "radiograph"),
    "mammography": ("mammography", "mammogram"),
}


@dataclass(frozen=True)
class Template:
    """A text with slots, for one question.

    Parameters
    ----------
    id : str
        12 hexadecimal digits over task, question and text.
    task : str
    question : str or None
        As the first correction asked.
    text : str
        Such as "{modality} of the {region}, {plane}"; a slot `{Plane}` keeps the first letter large.
    corrections : tuple of str
        Ids of the agreeing corrections.
    constant : tuple of str
        Slots that had the same value in all of them, so that the corrections do not show that they vary.
    terms : dict of str to dict
        The department's words for a field's values, where they differ, such as {"region": {"head": "Schädel"}}.
    """

    id: str
    task: str
    question: str | None
    text: str
    corrections: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    terms: Mapping[str, Mapping[str, str]] | None = None

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the fields, in the order of the text."""
        return tuple(dict.fromkeys(name.lower() for name in _slots(self.text)))

    def fits(self, question: Question) -> bool:
        """Return whether the template answers a question about a whole study."""
        asked = question_key(question.task, question.text)
        return question.region is None and asked == question_key(self.task, self.question)

    def apply(self, fields: Mapping[str, str]) -> str | None:
        """Return the text with the values of its slots; None if one is not known."""
        if any(not fields.get(name) for name in self.slots):
            return None

        def value(found: re.Match[str]) -> str:
            name = found.group(1)
            text = self._word(name.lower(), fields[name.lower()])
            return text[:1].upper() + text[1:] if name[:1].isupper() else text

        return re.sub(_ANY_SLOT, value, self.text)

    def _word(self, field: str, value: str) -> str:
        return ((self.terms or {}).get(field) or {}).get(value.lower(), value)


_ANY_SLOT = re.compile(r"\{([A-Za-z][A-Za-z0-9_ ]*)\}")


def _slots(text: str) -> list[str]:
    return _ANY_SLOT.findall(text)


def template_text(text: str, fields: Mapping[str, str]) -> str:
    """Return a text with the values of known fields replaced by slots.

    Longer values go first, and only whole words are replaced. A text that has braces already has no template and
    comes back without slots.
    """
    if "{" in text or "}" in text or len(text) > _LONGEST:
        return text
    spelled = [
        (spelling, name)
        for name, value in fields.items()
        for spelling in _SPELLINGS.get(value.lower(), (value,))
        if len(spelling) > 1
    ]
    spelled.sort(key=lambda each: (-len(each[0]), each[1]))
    for spelling, name in spelled:
        # Not inside a slot that was made before.
        pattern = rf"(?<![\w{{-])({re.escape(spelling)})(?![\w}}-])(?![^{{]*\}})"
        text = re.sub(pattern, partial(_slot, name), text, flags=re.IGNORECASE)
    return text


def _slot(name: str, found: re.Match[str]) -> str:
    word = found.group(1)
    is_large = found.start() == 0 and word[:1].isupper() and word[1:] == word[1:].lower()
    return "{" + (name[:1].upper() + name[1:] if is_large else name) + "}"


def propose(rows: Sequence[Correction], fields: Fields, fewest: int = FEWEST) -> list[Template]:
    """Return the templates on which corrections agree, those of most corrections and then of most slots first.

    Parameters
    ----------
    rows : sequence of Correction
        The newest text of each study, accepted answers among them; those of regions are left out.
    fields : callable
    fewest : int
        Number of studies that must agree, at least two.

    Notes
    -----
    A correction makes a template where its text holds known values. Another one agrees if its text fits the template
    with values of the same fields, even if a field of that study was wrong. At least one slot must vary between
    them: otherwise they only repeat one text. Where several templates of one question are proposed, a person chooses.
    """
    asked: dict[Hashable, list[tuple[Correction, str]]] = {}
    made: dict[tuple[Hashable, str], Correction] = {}
    values = {name: set(words) for name, words in _COMMON.items()}
    for row in rows:
        if row.region is not None:
            continue
        known = {name.lower(): value for name, value in fields(row).items() if value}
        for name, value in known.items():
            values.setdefault(name, set()).update(
                each.lower() for each in _SPELLINGS.get(value.lower(), (value,))
            )
        text = " ".join(row.text.split())
        key = question_key(row.task, row.question)
        asked.setdefault(key, []).append((row, text))
        if _slots(pattern := template_text(text, known)):
            made.setdefault((key, pattern), row)
    found = []
    for (key, text), first in made.items():
        template = Template(_id(first.task, first.question, text), first.task, first.question, text)
        agreeing = _agreeing(template, asked[key], values)
        studies = {row.image_hash or row.images for row, _ in agreeing}
        constant = tuple(
            name
            for name, *words in zip(template.slots, *(words for _, words in agreeing), strict=True)
            if len(set(words)) == 1
        )
        if len(studies) < max(FEWEST, fewest) or len(constant) == len(template.slots):
            continue
        ids = tuple(row.id for row, _ in agreeing)
        terms = learn_terms(template, rows, fields)
        found.append(replace(template, corrections=ids, constant=constant, terms=terms))
    return sorted(found, key=lambda each: (-len(each.corrections), -len(each.slots)))


def _agreeing(
    template: Template, asked: Iterable[tuple[Correction, str]], values: Mapping[str, set[str]]
) -> list[tuple[Correction, tuple[str, ...]]]:
    """Return the corrections whose texts fit a template, with the words in its slots."""
    pattern, found = _pattern(template), []
    for row, text in asked:
        if matched := pattern.fullmatch(text):
            words = tuple(
                matched.group(f"slot{number}").lower() for number in range(len(template.slots))
            )
            if all(word in values[slot] for slot, word in zip(template.slots, words, strict=True)):
                found.append((row, words))
    return found


def learn_terms(
    template: Template, rows: Iterable[Correction], fields: Fields
) -> dict[str, dict[str, str]]:
    """Return the department's own words for values, where corrections fit the template but for one slot.

    A word is learnt if two studies show it, if all corrections with this value agree on it, and if it is no value of
    that field itself. Otherwise the field was wrong, not the word.
    """
    key = question_key(template.task, template.question)
    asked = [row for row in rows if question_key(row.task, row.question) == key]
    known = [{n.lower(): v for n, v in fields(row).items()} for row in asked]
    values = {
        slot: {each[slot].lower() for each in known if each.get(slot)} for slot in template.slots
    }
    seen: dict[tuple[str, str], Counter[str]] = {}
    for row, each in zip(asked, known, strict=True):
        found = _pattern(template).fullmatch(" ".join(row.text.split()))
        if found is None or any(not each.get(slot) for slot in template.slots):
            continue
        words = found.groupdict()
        for position, slot in enumerate(template.slots):
            word = words[f"slot{position}"]
            others_fit = all(
                _means(words[f"slot{number}"], each[other])
                for number, other in enumerate(template.slots)
                if other != slot
            )
            if others_fit:
                own = "" if _means(word, each[slot]) else word
                seen.setdefault((slot, each[slot].lower()), Counter())[own] += 1
    terms: dict[str, dict[str, str]] = {}
    for (slot, value), own_words in seen.items():
        [(word, count), *more] = own_words.most_common()
        if word and count >= FEWEST and not more and word.lower() not in values[slot]:
            terms.setdefault(slot, {})[value] = word
    return terms


def _means(word: str, value: str) -> bool:
    spellings = _SPELLINGS.get(value.lower(), (value,))
    return word.lower() in {each.lower() for each in spellings}


def _pattern(template: Template) -> re.Pattern[str]:
    parts, seen = [], set()
    for number, part in enumerate(_ANY_SLOT.split(template.text)):
        if number % 2 == 0:
            parts.append(re.escape(part))
        elif part.lower() in seen:
            parts.append(f"(?P=slot{template.slots.index(part.lower())})")
        else:
            seen.add(part.lower())
            parts.append(rf"(?P<slot{template.slots.index(part.lower())}>[\w /-]{{1,40}})")
    return re.compile("".join(parts), re.IGNORECASE)


def _id(task: str, question: str | None, text: str) -> str:
    content = "\n".join((task, question or "", text))
    return hashlib.sha256(content.encode("utf-8")).hexdigest()[:12]
