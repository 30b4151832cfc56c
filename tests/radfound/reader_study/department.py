"""A small department: cases, sources, a study.yaml, and readers who rate without a browser."""

import csv
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from radfound.reader_study.design.create import Created, create
from radfound.reader_study.design.key import Key
from radfound.reader_study.design.plan import Item
from radfound.reader_study.rating.ratings import (
    COMMENT,
    FIRST,
    SCORE,
    SECOND,
    TIE,
    Rating,
    RatingStore,
    asked,
)

HUMAN, MODEL, OTHER = "Dr. Expert", "mini", "baseline"


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 10), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_answers(path: Path, cases: list[str], **changes) -> None:
    """Write what `radfound bench` writes, with the columns that matter."""
    fields = ("task", "id", "modality", "organ_system", "truth", "model", "majority")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        for number, case in enumerate(cases):
            line = {
                "task": "caption",
                "id": f"bench/{case}",
                "modality": "digital radiography",
                "organ_system": "lungs and airways",
                "truth": f"Small left effusion number {number}.",
                "model": f"Left   effusion {number}. ",
                "majority": f"Nothing special {number}.",
            }
            writer.writerow(line | changes)


def configuration(folder: Path, cases: int = 6, **changes) -> dict:
    """Return a valid study.yaml as a dict, and write what it names."""
    names = [f"patient-{k}" for k in range(cases)]
    for k, name in enumerate(names):
        write_image(folder / "images" / f"{name}.png", k)
    write_answers(folder / "answers.csv", names)
    return {
        "title": "Captions",
        "readers": 3,
        "repeats": 0.34,
        "pairwise": True,
        "seed": 5,
        "task": "caption",
        "reference": HUMAN,
        "sources": [
            {"name": HUMAN},
            {"name": MODEL, "answers": "answers.csv"},
            {"name": OTHER, "answers": "answers.csv", "column": "majority"},
        ],
        "cases": [
            {
                "id": name,
                "images": [f"images/{name}.png"],
                "answer_id": f"bench/{name}",
                "texts": {HUMAN: f"Small left pleural effusion {k}."},
            }
            for k, name in enumerate(names)
        ],
        **changes,
    }


def write_yaml(folder: Path, config: object) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def make_study(folder: Path, cases: int = 6, **changes) -> Created:
    config = write_yaml(folder, configuration(folder, cases, **changes))
    return create(config, folder / "study")


def rate_item(store: RatingStore, key: Key, reader: str, item: Item, worth: dict[str, int]) -> None:
    """Say everything that is asked about an item: each source's score on all criteria, and preferences by it."""
    said = []
    for _, _, candidate, kind, name in sorted(asked(store.plan, store.plan.reader(reader), item)):
        mine = worth[key.candidates[candidate]]
        if kind == SCORE:
            value = str(mine)
        else:
            other = worth[key.candidates[name]]
            value = TIE if mine == other else FIRST if mine > other else SECOND
        said.append(
            Rating(
                reader=reader, item=item.id, candidate=candidate, kind=kind, name=name, value=value, seconds=2.0
            )
        )  # fmt: skip
    store.record(said[0])
    # the others in one go: each by itself waits for the disk
    columns = list(asdict(said[0]))
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.executemany(
            f"INSERT INTO ratings ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            [tuple(asdict(rating).values()) for rating in said[1:]],
        )


def comment(store: RatingStore, reader: str, item: Item, candidate: str, text: str) -> None:
    store.record(Rating(reader=reader, item=item.id, candidate=candidate, kind=COMMENT, value=text))


def candidate_of(key: Key, item: Item, name: str) -> str:
    return next(each.id for each in item.candidates if key.candidates[each.id] == name)
