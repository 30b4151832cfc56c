"""Extract findings from a text, with polarity and laterality.

Sentences are searched for the findings of `radfound.benchmark.scoring.lexicon`. A finding is absent in the scope
of a negation ("no effusion or pneumothorax", "effusion has resolved"), uncertain in the scope of a hedge
("possible", "cannot be excluded"), and present otherwise. After NegEx (Chapman et al. 2001): triggers
before and after a finding, pseudo-triggers ("no change in"), and terms that end a scope ("but", a new clause).
Laterality comes from the finding's part of the sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from radfound.benchmark.scoring.lexicon import FINDINGS, SIDES, STATED_ABSENT, TRIGGERS

PRESENT, ABSENT, UNCERTAIN = "present", "absent", "uncertain"
COUNTED = (
    "right",
    "extra",
    "missed",
    "present_right",
    "present_extra",
    "present_missed",
    "named_by_both",
    "opposite",
    "sides_compared",
    "wrong_side",
    "uncertain",
)
"""Counts of `compare_findings`, in order."""

_SIDE_SETS = {
    "left": frozenset({"left"}),
    "right": frozenset({"right"}),
    "both": frozenset({"left", "right"}),
}
_SIDE = re.compile("|".join(rf"\b(?P<{name}>{words})\b" for name, words in SIDES.items()))
_BOTH_SIDES = re.compile(
    r"\b(?:left|right)(?:[ -]sided)?(?:\s+\w+)?\s+(?:and|or)\s+(?:the\s+)?(?:left|right)(?:[ -]sided)?\b"
    r"|\b(?:left|right)\b[\w\s-]{0,12}\b(?:greater|larger|more|worse)\b(?:\s+\w+)?\s+than\s+(?:the\s+)?(?:left|right)\b"
    r"|\b(?:left|right)\s*>+\s*(?:left|right)\b"
)
_PART_ENDS = re.compile(
    r"[,:]|\b(?:and|with|but|or|nor|as well as|although|however|while|without|no)\b"
)
_GOES_ON = ("and", "with", "or", "nor", "as well as")
_CLAUSE_STARTS = re.compile(r",(?:\s*(?:and|with)\b)?|\b(?:and|with)\b")
_VERB = re.compile(
    r"\b(?:is|are|was|were|has|have|shows?|demonstrates?|reveals?|remains?|appears?|contains?)\b"
)
_SEEN = re.compile(
    r"\b(?:is|are|was|were|has been|have been)\s+(?:\w+ly\s+)?"
    r"(?:seen|identified|noted|present|evident|visible|visuali[sz]ed|demonstrated|detected|appreciated"
    r"|found|shown|observed|apparent)\b"
)


@dataclass(frozen=True)
class Finding:
    """Status of a finding in a text ("present", "absent" or "uncertain") and its sides."""

    status: str
    sides: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Span:
    """A span of a sentence: a finding, or a trigger of a kind."""

    name: str
    start: int
    end: int


def find_findings(text: str) -> dict[str, Finding]:
    """Return the findings in a text.

    With several mentions, present takes precedence over uncertain, and uncertain over absent; the sides are
    those of the mentions with that status.
    """
    by_name: dict[str, list[Finding]] = {}
    for sentence in _sentences(text):
        for name, mention in _mentions(sentence):
            by_name.setdefault(name, []).append(mention)
    found = {}
    for name, mentions in by_name.items():
        stated = {mention.status for mention in mentions}
        status = next(s for s in (PRESENT, UNCERTAIN, ABSENT) if s in stated)
        sides: frozenset[str] = frozenset()
        found[name] = Finding(
            status, sides.union(*(m.sides for m in mentions if m.status == status))
        )
    return found


def compare_findings(answer: str, truth: str) -> tuple[int, ...]:
    """Count agreement and disagreement of the findings of two texts.

    Returns
    -------
    tuple of int, in the order of `COUNTED`
        right, extra, missed: findings with equal polarity in both; in the answer only or with opposite
        polarity; in the truth only or with opposite polarity. The same for present findings only. Findings
        named by both, and those of opposite polarity; findings present in both with a side in both, and
        those with different sides. Findings that are uncertain in either text, excluded from all other
        counts.
    """
    in_answer, in_truth = find_findings(answer), find_findings(truth)
    unsure = {n for part in (in_answer, in_truth) for n, f in part.items() if f.status == UNCERTAIN}
    given = {n: f for n, f in in_answer.items() if n not in unsure}
    wanted = {n: f for n, f in in_truth.items() if n not in unsure}
    both = given.keys() & wanted.keys()
    alike = {n for n in both if given[n].status == wanted[n].status}
    present = {n for n in alike if given[n].status == PRESENT}
    sided = {n for n in present if given[n].sides and wanted[n].sides}
    return (
        len(alike),
        len(given) - len(alike),
        len(wanted) - len(alike),
        len(present),
        sum(f.status == PRESENT for f in given.values()) - len(present),
        sum(f.status == PRESENT for f in wanted.values()) - len(present),
        len(both),
        len(both) - len(alike),
        len(sided),
        sum(given[n].sides != wanted[n].sides for n in sided),
        len(unsure),
    )


def _sentences(text: str) -> list[str]:
    """Split a text into lower-case sentences with single spaces; a heading ends a sentence."""
    text = re.sub(r"\b(?:findings|impression|conclusion)\s*:", "\n", text.lower())
    cut = re.split(r"(?<=[.!?])\s+|[;\n•]+", text)
    return [" ".join(sentence.split()) for sentence in cut if sentence.strip(" .")]


def _mentions(sentence: str) -> list[tuple[str, Finding]]:
    found = []
    for name, pattern in _absence_patterns():
        if match := pattern.search(sentence):
            found.append((name, Finding(ABSENT)))
            sentence = sentence[: match.start()] + " " * len(match[0]) + sentence[match.end() :]
    spans = _longest(sentence, _finding_patterns())
    triggers = _longest(sentence, _trigger_patterns())
    sided = _BOTH_SIDES.sub(lambda match: "bilateral".ljust(len(match[0])), sentence)
    for span in spans:
        status = _status(sentence, span, triggers)
        found.append((span.name, Finding(status, _sides(sided, span, spans))))
    return found


# Finding the words -----------------------------------------------------------------------------


@cache
def _finding_patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return _compiled(FINDINGS)


@cache
def _absence_patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return _compiled(STATED_ABSENT)


def _compiled(table: Mapping[str, Sequence[str]]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(
        (finding, re.compile(rf"\b(?:{'|'.join(map(_spaced, phrases))})(?:s|es)?\b"))
        for finding, phrases in table.items()
    )


def _spaced(phrase: str) -> str:
    return phrase.replace(" ?", r"[\s-]?").replace(" ", r"[\s-]+")


@cache
def _trigger_patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(
        (kind, re.compile(rf"(?<!\w)(?:{phrase})(?:(?!\w)|(?<=\?))"))
        for kind, phrases in TRIGGERS.items()
        for phrase in phrases
    )


def _longest(sentence: str, patterns: Iterable[tuple[str, re.Pattern[str]]]) -> list[_Span]:
    """Return the matches in order; of overlapping matches the longest, then the first listed."""
    found = [
        _Span(name, match.start(), match.end())
        for name, pattern in patterns
        for match in pattern.finditer(sentence)
    ]
    kept: list[_Span] = []
    for span in sorted(found, key=lambda span: span.start - span.end):
        if all(span.end <= other.start or span.start >= other.end for other in kept):
            kept.append(span)
    return sorted(kept, key=lambda span: span.start)


# Present, absent or uncertain -------------------------------------------------------------------


def _status(sentence: str, span: _Span, triggers: Sequence[_Span]) -> str:
    reaching = {trigger.name for trigger in triggers if _reaches(sentence, trigger, span, triggers)}
    if "hedge_after" in reaching:
        return UNCERTAIN
    if reaching & {"no_before", "no_after"}:
        return ABSENT
    return UNCERTAIN if reaching & {"hedge_before", "hedge_around"} else PRESENT


def _reaches(sentence: str, trigger: _Span, span: _Span, triggers: Sequence[_Span]) -> bool:
    forward = trigger.name in ("no_before", "hedge_before", "hedge_around")
    backward = trigger.name in ("no_after", "hedge_after", "hedge_around")
    if forward and trigger.end <= span.start:
        return span.start < _forward_end(sentence, trigger, triggers)
    if backward and span.end <= trigger.start:
        return span.end > _backward_start(sentence, trigger, triggers)
    return False


def _forward_end(sentence: str, trigger: _Span, triggers: Sequence[_Span]) -> int:
    """Return the end of a forward scope: a stop, or a clause with a hedge or its own statement."""
    ends = [len(sentence)]
    ends += [t.start for t in triggers if t.name == "stop" and t.start >= trigger.end]
    bounds = [m.start() for m in _CLAUSE_STARTS.finditer(sentence, trigger.end)] + [len(sentence)]
    for start, end in pairwise(bounds):
        clause = sentence[start:end]
        hedged = any(t.name.startswith("hedge") and start <= t.start < end for t in triggers)
        states = _VERB.search(clause) and not _SEEN.search(clause)
        if states or hedged or (trigger.name.startswith("hedge") and clause.startswith(",")):
            ends.append(start)
    return min(ends)


def _backward_start(sentence: str, trigger: _Span, triggers: Sequence[_Span]) -> int:
    """Return the start of a backward scope: the trigger's clause, if another trigger or verb precedes it."""
    before = [t.end for t in triggers if t.end <= trigger.start]
    before += [
        verb.end()
        for verb in _VERB.finditer(sentence, 0, trigger.start)
        if not any(t.start <= verb.start() < t.end for t in triggers)
    ]
    if not before:
        return 0
    starts = [m.start() for m in _CLAUSE_STARTS.finditer(sentence, max(before), trigger.start)]
    return min(starts, default=max(before))


# Left and right --------------------------------------------------------------------------------


def _sides(sentence: str, span: _Span, spans: Sequence[_Span]) -> frozenset[str]:
    """Return the sides of a finding.

    The nearest side before the finding in its part of the sentence, else the nearest after it; else the side of
    an adjacent part without a finding; else, after "and" and the like, the side of the previous part.
    """
    ends = [m for m in _PART_ENDS.finditer(sentence) if not _inside(m, spans)]
    starts = [0, *(m.end() for m in ends)]
    stops = [*(m.start() for m in ends), len(sentence)]
    joints = ["", *(m[0] for m in ends), ""]
    here = max(k for k, start in enumerate(starts) if start <= span.start)

    def sides(k: int, low: int = 0, high: int | None = None) -> list[frozenset[str]]:
        start, stop = max(starts[k], low), min(stops[k], len(sentence) if high is None else high)
        return [_SIDE_SETS[str(m.lastgroup)] for m in _SIDE.finditer(sentence, start, stop)]

    def named(k: int) -> bool:
        return any(starts[k] <= other.start < stops[k] for other in spans)

    previous = max((other.end for other in spans if other.end <= span.start), default=0)
    following = min((o.start for o in spans if o.start >= span.end), default=len(sentence))
    before, behind = sides(here, previous, span.end), sides(here, span.end, following)
    last, free_next = here + 1 == len(starts), here + 1 < len(starts) and not named(here + 1)
    if before or behind:
        own = before[-1] if before else behind[0]
        goes_on = not last and free_next and joints[here + 1] == "and"
        return own.union(*sides(here + 1)) if goes_on and behind else own
    if here and not named(here - 1) and sides(here - 1):
        return sides(here - 1)[-1]
    if free_next and sides(here + 1):
        return sides(here + 1)[0]
    if here and joints[here] in _GOES_ON and sides(here - 1):
        return sides(here - 1)[-1]
    return frozenset()


def _inside(match: re.Match[str], spans: Sequence[_Span]) -> bool:
    return any(span.start <= match.start() < span.end for span in spans)
