"""`radfound ask`, `caption` and `report`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radfound.cli.arguments import as_json, studies_folder
from radfound.exceptions import RadFoundError, RequestError
from radfound.question import CANNOT_TELL, Answer
from radfound.records.adapters import AdapterStore, store_path
from radfound.wire import AskRequest, answer_to_json, parse_ask

if TYPE_CHECKING:
    from radfound.engine.engine import Engine
    from radfound.study.study import Study

TASKS = {"ask": "vqa", "caption": "caption", "report": "report"}
"""The task of each command."""


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to the program's; `common` holds the shared arguments."""
    for name, help_text, usage in (
        ("ask", "answer a question about a study", 'radfound ask [options] FILE… "question"'),
        ("caption", "describe a study in a sentence", None),
        ("report", "write findings and impression of a study", None),
    ):
        command = commands.add_parser(name, help=help_text, usage=usage, parents=[common])
        _add_arguments(command, name)


def _add_arguments(command: argparse.ArgumentParser, name: str) -> None:
    last = "; the question comes last, in quotes" if name == "ask" else ""
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="DICOM folder, zip or file, NIfTI, NRRD, MetaImage, PNG or JPEG; "
        f"several files are the views of one study{last}",
    )
    command.add_argument("--series", help="the DICOM series, if there are several")
    command.add_argument("--volume", type=int, help="the volume of a 4D image, counted from 0")
    command.add_argument(
        "--box-mm",
        type=float,
        nargs=6,
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1"),
        help="restrict the question to this box, RAS in mm",
    )
    command.add_argument(
        "--model",
        default="radfound-mini",
        help="radfound-mini (default), a folder of weights, or openai:ADDRESS#NAME",
    )
    command.add_argument(
        "--send-images-to",
        action="append",
        default=[],
        metavar="HOST",
        help="another machine that may receive images",
    )
    command.add_argument("--device", help='such as "cuda"; default: chosen automatically')
    command.add_argument("--max-new-tokens", type=int, metavar="N", help="1 to 512")
    command.add_argument(
        "--studies", metavar="DIR", help="use the active adapter of this folder of studies"
    )
    command.add_argument(
        "--evidence",
        type=Path,
        metavar="FILE.nrrd",
        help="write the evidence map, a volume on the voxels of the image",
    )
    command.set_defaults(run=_ask)


def _ask(args: argparse.Namespace) -> str:
    files, request = _request(args)
    adapters = AdapterStore(store_path(studies_folder(args.studies))) if args.studies else None
    _check_map_path(args.evidence)

    with redirect_stdout(sys.stderr), _progress(args.max_new_tokens) as progress:
        start = time.monotonic()
        progress.set_description("loading the study")
        study = _read_study(files, args.series, args.volume)
        read_ms = round(1000 * (time.monotonic() - start))
        progress.set_description("loading the model")
        engine = _load_engine(args.model, adapters, args.device, args.send_images_to)
        progress.set_description("answering")
        pieces = engine.stream(
            study,
            TASKS[args.command],
            request.question,
            region=request.region,
            max_new_tokens=request.max_new_tokens,
        )
        answer = _last(pieces, progress)
        if args.evidence and answer.text == CANNOT_TELL:
            print(answer.evidence_note, file=sys.stderr)
        elif args.evidence:
            progress.set_description("computing the evidence map")
            evidence = engine.evidence(study, answer, region=request.region)
            written = [path.name for path in evidence.write(args.evidence)]
            answer = replace(answer, evidence=written[0])
    timings_ms = {key: value + read_ms for key, value in answer.timings_ms.items()}
    answer = replace(answer, timings_ms={**timings_ms, "read": read_ms})
    return as_json(answer_to_json(answer)) if args.json else _answer_text(answer)


def _request(args: argparse.Namespace) -> tuple[list[str], AskRequest]:
    """Return the files of a study, and what is asked about it."""
    files, question = list(args.files), None
    if args.command == "ask":
        if len(files) < 2:
            raise RequestError('ask needs files and a question: radfound ask FILE… "question"')
        question = files.pop()
    params: dict[str, Any] = {"question": question, "max_new_tokens": args.max_new_tokens}
    if args.box_mm:
        params["region"] = {"box_mm": [args.box_mm[:3], args.box_mm[3:]]}
    request = parse_ask(params)
    if args.command == "ask" and request.question is None:
        raise RequestError("question: missing; put it last, in quotes")
    return files, request


def _check_map_path(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix.lower() != ".nrrd":
        raise RequestError(f"--evidence: found {path.name}; expected a name that ends in .nrrd")
    if not path.parent.is_dir():
        raise RequestError(f"--evidence: there is no folder {path.parent}; make it first")


def _read_study(files: list[str], series: str | None, volume: int | None) -> Study:
    from radfound.reading import read_study

    return read_study(files[0] if len(files) == 1 else files, series=series, volume=volume)


def _load_engine(
    model: str, adapters: AdapterStore | None, device: str | None, hosts: Sequence[str] = ()
) -> Engine:
    from radfound.engine.models.build import build_engine
    from radfound.engine.models.settings import one_model

    return build_engine(
        one_model(model, hosts).named(), send_images_to=hosts, adapters=adapters, device=device
    )


def _last(pieces: Iterator[str | Answer], progress: Any) -> Answer:
    answer = None
    for piece in pieces:
        if isinstance(piece, Answer):
            answer = piece
        else:
            progress.update()
    if answer is None:
        raise RadFoundError("the model stopped without an answer; try again")
    return answer


@contextmanager
def _progress(total: int | None) -> Iterator[Any]:
    """Show a token count on stderr, if it is a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, unit=" tokens", file=sys.stderr, disable=None, leave=False) as progress:
        yield progress


def _answer_text(answer: Answer) -> str:
    model = answer.model.name
    if answer.model.adapter is not None:
        model += f", adapter {answer.model.adapter}"
    notes = [] if answer.confidence is None else [f"confidence {answer.confidence:.2f}"]
    if answer.reason:
        notes.append(answer.reason.rstrip("."))
    notes.append(model)
    if not answer.finished:
        notes.append("cut off")
    if answer.evidence is not None:
        notes.append(f"map in {answer.evidence}")
    lines = [answer.text, " · ".join(notes)]
    if answer.evidence is not None and answer.evidence_note:
        lines.append(answer.evidence_note)
    return "\n".join(lines)
