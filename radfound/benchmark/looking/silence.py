"""What the engine says and what it keeps silent about: a curve, and counts over films and fields.

`python -m radfound.benchmark.looking --data KIT` prints three tables:

- Closed questions of VQA-RAD's test split, and of VQA-Med and VQA-RAD about figures of held-out cases: how many of the
  answers are right if only the surest are said, for the language model alone and for a predictor from words alone; and
  what the engine says of itself, with classifiers, competence and live check.
- Six questions about findings, each asked about the same chest films: what is said, and by what. An answer of the
  language model that is the same about every film, and about a blank, does not depend on the film.
- Fields of held-out figures: how often they are silent.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from radfound.benchmark.looking.words import WordPredictors
from radfound.benchmark.markdown import header, number
from radfound.benchmark.scoring.metrics import closed_match, exact_match, parts_of_mean, ratio
from radfound.benchmark.scoring.statistics import Interval, bootstrap
from radfound.benchmark.tasks import Item, Task
from radfound.datasets.tables import read_json_lines
from radfound.question import CANNOT_TELL, Answer
from radfound.reading import read_study
from radfound.study.study import Study

if TYPE_CHECKING:
    from radfound.engine.answer_stream import AnswerStream
    from radfound.engine.engine import Engine

FILM_QUESTIONS = (
    "Is there a pneumothorax?",
    "Is there a pleural effusion?",
    "Is there consolidation?",
    "Is there a rib fracture?",
    "Is there a mass?",
    "Is the heart enlarged?",
)
SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)
"""Shares of the answers that are said, the surest first."""
_FILMS = 32
_AT_ONCE = 16

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Said:
    """One answer of the engine, and the language model's own.

    Parameters
    ----------
    text : str
        What a reader is shown.
    source : str
        As in `Answer`; "silent" where it cannot tell.
    guess : str
        The language model's text.
    probability : float
        Of the guess; 0.0 if it is not known.
    """

    text: str
    source: str
    guess: str
    probability: float


def ask(
    engine: Engine, asked: Iterable[tuple[Study, str]], advance: Advance, model_only: bool = False
) -> list[Answer]:
    """Return the engine's answers in order; several are asked at once."""
    return list(_answers(engine, asked, advance, model_only))


def _answers(
    engine: Engine, asked: Iterable[tuple[Study, str]], advance: Advance, model_only: bool
) -> Iterator[Answer]:
    open_streams: deque[AnswerStream] = deque()

    def first() -> Answer:
        *_, answer = open_streams.popleft()
        advance(1)
        assert isinstance(answer, Answer)
        return answer

    for study, text in asked:
        open_streams.append(engine.stream(study, question=text, model_only=model_only))
        if len(open_streams) >= _AT_ONCE:
            yield first()
    while open_streams:
        yield first()


def _said(answer: Answer, alone: Answer) -> Said:
    silent = answer.text == CANNOT_TELL
    sure = alone.confidence if alone.confidence is not None else 1 - (alone.uncertainty or 1.0)
    return Said(answer.text, "silent" if silent else answer.source, alone.text, sure)


# Closed questions -------------------------------------------------------------------------------


def closed_curve(engine: Engine, task: Task, advance: Advance, seed: int = 0) -> list[str]:
    """Return the curve of closed questions in Markdown."""
    lines: list[str] = []
    closed = [item for item in task.items if item.group == "closed"]
    asked = [(item, item.question.text or "") for item in closed]
    shown = [(_read(item), text) for item, text in asked]
    answers = ask(engine, shown, advance)
    alone = ask(engine, shown, advance, model_only=True)
    said = [_said(*pair) for pair in zip(answers, alone, strict=True)]
    for title, split in (("VQA-RAD, test", "test"), ("figures of held-out cases", "held-out")):
        rows = [k for k, item in enumerate(closed) if item.example.split == split]
        if rows:
            lines += _curve([closed[k] for k in rows], [said[k] for k in rows], task, title, seed)
    return lines


def _read(item: Item) -> Study:
    return item.example.read()


def _curve(
    items: Sequence[Item], said: Sequence[Said], task: Task, title: str, seed: int
) -> list[str]:
    patients = [item.example.key for item in items]

    def right(texts: Sequence[str], rows: Sequence[int]) -> Interval:
        scores = [closed_match(texts[k], items[k].turn.answer) for k in rows]
        return bootstrap(ratio, parts_of_mean(scores), [patients[k] for k in rows], seed=seed)

    words, sure = _words(items, task)
    orders = {
        "language model alone": (
            [each.guess for each in said],
            np.argsort([-each.probability for each in said], kind="stable"),
        ),
        "words alone": (words, np.argsort(-sure, kind="stable")),
    }
    lines = [
        "",
        f"**Closed questions, {title}** (n = {len(items)}): right of those said, surest first",
        "",
    ]
    lines += header(["answers of", *(f"{share:.0%} said" for share in SHARES)])
    for name, (texts, order) in orders.items():
        cells = [
            _cell(right(texts, order[: max(1, round(share * len(items)))].tolist()))
            for share in SHARES
        ]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    spoken = [k for k, each in enumerate(said) if each.source != "silent"]
    sources = Counter(each.source for each in said)
    told = ", ".join(f"{sources[name]} {name}" for name in ("field", "model", "silent"))
    lines += ["", f"As the engine answers: {len(spoken) / len(said):.1%} said ({told})"]
    if spoken:
        shown = _cell(right([each.text for each in said], spoken))
        lines[-1] += f"; of these {shown} right, words alone {_cell(right(words, spoken))}"
    lines[-1] += "."
    return lines


def _words(items: Sequence[Item], task: Task) -> tuple[list[str], np.ndarray]:
    """Return the answers from words alone and their probabilities."""
    sources = {item.example.source for item in items}
    pictures = {file.name for item in items for file in item.example.files}
    held = items[0].example.split == "held-out"
    known = [
        item
        for item in task.published
        if item.group == "closed"
        and item.example.source in sources
        and not (held and pictures & {file.name for file in item.example.files})
    ]
    return WordPredictors(known).sure_regression([item.question.text or "" for item in items])


def _cell(interval: Interval) -> str:
    return number(vars(interval), True, True)


# Films and fields -------------------------------------------------------------------------------


def film_table(engine: Engine, data: Path, advance: Advance, limit: int | None = None) -> list[str]:
    """Return what is said to `FILM_QUESTIONS` about held-out chest films of patients with pneumonia."""
    films = [
        read_study(data / "findings" / name) for name in held_out_films(data)[: limit or _FILMS]
    ]
    shown = [(film, text) for text in FILM_QUESTIONS for film in films]
    answers = ask(engine, shown, advance)
    blank = films[0].blanked()
    guesses = {
        text: answer.text
        for text, answer in zip(
            FILM_QUESTIONS,
            ask(engine, [(blank, text) for text in FILM_QUESTIONS], advance, model_only=True),
            strict=True,
        )
    }
    by_question: dict[str, list[Answer]] = defaultdict(list)
    for (_, text), answer in zip(shown, answers, strict=True):
        by_question[text].append(answer)
    lines = ["", f"**Six questions about {len(films)} held-out chest films** of pneumonia", ""]
    lines += header(
        [
            "question",
            "said by a classifier",
            "said by the model",
            "silent",
            "said, and the same about every film",
        ]
    )
    for text, found in by_question.items():
        said = [answer for answer in found if answer.text != CANNOT_TELL]
        model = [answer.text for answer in said if answer.source == "model"]
        same = len(model) if set(model) == {guesses[text]} else 0
        cells = [
            text,
            str(len(said) - len(model)),
            str(len(model)),
            str(len(found) - len(said)),
            str(same),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def held_out_films(data: Path) -> list[str]:
    """Return files of chest films of the kit's covid_chestxray that no training saw, one for each patient first."""
    rows = [
        row
        for _, row in read_json_lines(data / "findings" / "findings.jsonl")
        if row["set"] == "covid_chestxray"
        and row["modality"] in ("DX", "CR")
        and row["split"] in ("val", "test")
        and "pneumonia" in row["labels"]
    ]
    nth: Counter[str] = Counter()
    places = []
    for place, row in enumerate(rows):
        places.append((nth[row["patient"]], place))
        nth[row["patient"]] += 1
    return [rows[place]["file"] for _, place in sorted(places)]


def field_table(engine: Engine, task: Task, advance: Advance) -> list[str]:
    """Return how often questions for the fields of held-out figures are silent, and how often right."""
    shown = [(item.example.read(), item.question.text or "") for item in task.items]
    answers = ask(engine, shown, advance)
    lines = ["", f"**Fields of {len(task.items) // 3} held-out figures**", ""]
    lines += header(["field", "n", "silent", "right of those said"])
    for group in dict.fromkeys(item.group for item in task.items):
        found = [
            (item, answer)
            for item, answer in zip(task.items, answers, strict=True)
            if item.group == group
        ]
        said = [(item, answer) for item, answer in found if answer.text != CANNOT_TELL]
        silent = 1 - len(said) / len(found)
        scores = [exact_match(answer.text, item.turn.answer) for item, answer in said]
        right = _cell(
            bootstrap(ratio, parts_of_mean(scores), [item.example.key for item, _ in said])
        )
        lines.append(f"| {group} | {len(found)} | {silent:.1%} | {right} |")
    return lines
