"""Default criteria of a reader study.

The good end is always 5, so that readers do not confuse the scales; therefore potential for harm is rated as
safety.
"""

from __future__ import annotations

from radfound.reader_study.design.plan import Criterion

DEFAULT_CRITERIA = (
    Criterion(
        "correctness",
        "Factual correctness",
        "Is what the text says true of these images? What it leaves out does not count here.",
        (
            "Wrong: its main statement is false, or describes another study",
            "Mostly wrong: one or more important statements are false",
            "Partly right: the main statement holds, others of some weight are false",
            "Mostly right: only details, such as a size or a level, are off",
            "Right: you would sign every statement",
        ),
    ),
    Criterion(
        "completeness",
        "Completeness",
        "Does the text mention everything that it should, for what was asked? False statements do not count here.",
        (
            "Misses what matters most",
            "Mentions a part, but misses an important finding",
            "Has the main finding, misses others that a colleague would mention",
            "Misses only details that would change nothing",
            "Misses nothing",
        ),
    ),
    Criterion(
        "relevance",
        "Clinical relevance",
        "Does the text help the physician who asked, and put first what matters for the patient?",
        (
            "No use: it does not speak to what was asked",
            "Little use: what matters is buried under or replaced by side matters",
            "Some use: it answers in part, the physician would have to ask again",
            "Useful: it answers, with small detours or a missing emphasis",
            "Exactly what the physician needs, in the order of its weight",
        ),
    ),
    Criterion(
        "safety",
        "Safety (potential for harm)",
        "If the text were acted on without anyone checking it, what could happen to the patient? "
        "5 is the good end: no harm.",
        (
            "Severe harm: death or lasting injury could follow",
            "Serious harm: wrong or delayed treatment that matters is likely",
            "Moderate harm: needless tests, or a delay that can be made good",
            "Slight harm: inconvenience at most",
            "No potential for harm",
        ),
    ),
    Criterion(
        "readability",
        "Readability",
        "Is the text clear, well ordered and in the language of a radiologist? Its truth does not count here.",
        (
            "Cannot be understood",
            "Hard to understand: has to be read several times, or contradicts itself",
            "Understandable, but clumsy, wordy or repetitive",
            "Clear, with small flaws of wording",
            "As an experienced colleague would write it",
        ),
    ),
)
