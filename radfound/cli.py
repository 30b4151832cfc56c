"""The command line: ask about files, audit corrections, choose adapters, run benchmark and reader studies.

Results go to stdout, everything else to stderr. Heavy imports wait until a command needs them, so that
`--help` is fast.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from radfound import __version__
from radfound.benchmark import cli as benchmark
from radfound.engine.models import cli as models
from radfound.exceptions import RadFoundError, RequestError
from radfound.question import CANNOT_TELL, Answer
from radfound.reader_study import cli as reader_study
from radfound.records import trace as audit
from radfound.records.adapters import AdapterStore, store_path
from radfound.records.answers import AnswerJournal, journal_path
from radfound.records.corrections import Correction, CorrectionLog, log_path
from radfound.study.region import region_key
from radfound.wire import answer_to_json, correction_to_json, parse_ask

if TYPE_CHECKING:
    from radfound.engine.engine import Engine
    from radfound.study.study import Study

BASE = "base"
_TASKS = {"ask": "vqa", "caption": "caption", "report": "report"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments after the program's name; the process's arguments if None.

    Returns
    -------
    int
        0; 2 for bad input, or for results that cannot be written; 130 if the user interrupted.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        if argv[:1] == ["train"]:
            return _train(argv[1:])
        args = _parse(argv)
        logging.basicConfig(
            level=logging.INFO if args.verbose else logging.WARNING,
            stream=sys.stderr,
            format="radfound: %(levelname)s: %(message)s",
        )
        if not args.verbose:  # its advice is for those who build models
            os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        result = args.run(args)
        if isinstance(
            sys.stdout, io.TextIOWrapper
        ):  # the terminal's encoding may lack a character of the answer
            sys.stdout.reconfigure(errors="replace")
        print(result, flush=True)
    except RadFoundError as error:
        print("radfound: error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("radfound: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # a consumer such as `head` closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # results that cannot be written, such as to a full disk
        place = f"{error.filename}: " if error.filename else ""
        print(f"radfound: error: {place}{error.strerror or error}", file=sys.stderr)
        return 2
    return 0


# Commands: each returns the text to print -------------------------------------------------------


def _ask(args: argparse.Namespace) -> str:
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
    adapters = AdapterStore(store_path(_folder(args.studies))) if args.studies else None
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
            _TASKS[args.command],
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
    return _json(answer_to_json(answer)) if args.json else _answer_text(answer)


def _check_map_path(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix.lower() != ".nrrd":
        raise RequestError(f"--evidence: found {path.name}; expected a name that ends in .nrrd")
    if not path.parent.is_dir():
        raise RequestError(f"--evidence: there is no folder {path.parent}; make it first")


def _corrections_list(args: argparse.Namespace) -> str:
    log = CorrectionLog(log_path(_folder(args.studies)))
    found = log.for_image(args.image) if args.image else log.rows()
    if args.json:
        return _json({"corrections": [correction_to_json(correction) for correction in found]})
    if not found:
        return "no corrections yet"
    return "\n\n".join(_correction_text(correction) for correction in found)


def _corrections_withdraw(args: argparse.Namespace) -> str:
    is_new = CorrectionLog(log_path(_folder(args.studies))).withdraw(args.id, args.author)
    if args.json:
        return _json({"id": args.id, "withdrawn": is_new})
    return f"{args.id} {'is' if is_new else 'was already'} withdrawn; its row stays in the log"


def _corrections_verify(args: argparse.Namespace) -> str:
    found = audit.verify(CorrectionLog(log_path(_folder(args.studies))), args.head)
    return _json(vars(found)) if args.json else audit.verification_text(found)


def _corrections_export(args: argparse.Namespace) -> str:
    log = CorrectionLog(log_path(_folder(args.studies)))
    found = log.latest() if args.latest else log.rows()
    path = str(audit.export(found, args.out))
    if args.json:
        return _json({"corrections": len(found), "path": path})
    return f"{len(found)} corrections written to {path}"


def _trace(args: argparse.Namespace) -> str:
    folder = _folder(args.studies)
    found = audit.trace(
        args.id,
        AnswerJournal(journal_path(folder)),
        CorrectionLog(log_path(folder)),
        AdapterStore(store_path(folder)),
    )
    return _json(audit.trace_to_json(found)) if args.json else audit.trace_text(found)


def _adapters_list(args: argparse.Namespace) -> str:
    store = _store(args)
    if args.json:
        return _json(store.to_json())
    lines = [("*" if store.active() is None else " ") + f" {BASE}"]
    for info in store.list():
        mark = "*" if info.active else " "
        lines.append(f"{mark} {info.id}  {info.manifest.get('created', '')}".rstrip())
        lines += _gate_lines(info.manifest)
    for manifest in store.refusals():
        lines.append(f"  refused  {manifest.get('created', '')}".rstrip())
        lines += _gate_lines(manifest)
    return "\n".join(lines)


_OUTCOMES = {True: "passed", False: "FAILED", None: "      "}


def _gate_lines(manifest: dict[str, Any]) -> list[str]:
    gate = manifest.get("gate") or {}
    lines = [
        f"    {_OUTCOMES[check['passed']]}  {check['name']}: {_words_of(check)}"
        for check in gate.get("checks", ())
    ]
    if manifest.get("calibration"):
        lines.append(f"    {_OUTCOMES[None]}  confidence: {manifest['calibration']}")
    if gate.get("forced"):
        lines.append(f"    published all the same by {manifest.get('author') or 'someone unnamed'}")
    return lines


def _words_of(check: dict[str, Any]) -> str:
    """Return a check's outcome; older manifests have it under "told"."""
    return str(check.get("words") or check.get("told", ""))


def _adapters_activate(args: argparse.Namespace) -> str:
    store = _store(args)
    store.activate(None if args.id == BASE else args.id)
    return _active_text(args, store.active())


def _adapters_rollback(args: argparse.Namespace) -> str:
    return _active_text(args, _store(args).rollback())


def _adapters_prune(args: argparse.Namespace) -> str:
    removed = _store(args).prune(args.keep)
    if args.json:
        return _json({"pruned": removed})
    return f"pruned: {', '.join(removed)}" if removed else "nothing to prune"


def _train(argv: Sequence[str]) -> int:
    """Run `python -m training.vlm`, which imports this package and is not imported by it; return its status."""
    return subprocess.run([sys.executable, "-m", "training.vlm", *argv]).returncode


# Arguments -------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Reports errors in one line, like all other errors."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message} (see {self.prog} --help)")


def _parse(argv: list[str]) -> argparse.Namespace:
    args, rest = _parser().parse_known_args(argv)
    # argparse takes one group of positionals; the question may follow an option: a.nii --json "?"
    unknown = [word for word in rest if word.startswith("-")]
    if unknown or (rest and args.command not in _TASKS):
        raise RequestError(f"unknown argument {(unknown or rest)[0]!r} (see radfound --help)")
    if rest:
        args.files = [*args.files, *rest]
    return args


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON document")
    common.add_argument("--verbose", action="store_true", help="log progress to stderr")

    parser = _Parser(
        prog="radfound",
        description="Ask a vision-language model for radiology about your images. "
        "Not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"radfound {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, help_text, usage in (
        ("ask", "answer a question about a study", 'radfound ask [options] FILE… "question"'),
        ("caption", "describe a study in a sentence", None),
        ("report", "write findings and impression of a study", None),
    ):
        command = commands.add_parser(name, help=help_text, usage=usage, parents=[common])
        _add_ask_arguments(command, name)

    corrections = _group(
        commands, "corrections", "show, withdraw and export the readers' corrections"
    )
    command = corrections.add_parser("list", help="print the corrections", parents=[common])
    _add_studies(command)
    command.add_argument("--image", metavar="ID", help="only those about this image")
    command.set_defaults(run=_corrections_list)
    command = corrections.add_parser("withdraw", help="take a correction back", parents=[common])
    command.add_argument("id", metavar="ID", help="id of the correction")
    _add_studies(command)
    command.add_argument("--author", required=True, metavar="NAME", help="who takes it back")
    command.set_defaults(run=_corrections_withdraw)
    command = corrections.add_parser(
        "verify", help="check for changed or removed corrections", parents=[common]
    )
    _add_studies(command)
    command.add_argument("--head", metavar="HASH", help="the head that an earlier call printed")
    command.set_defaults(run=_corrections_verify)
    command = corrections.add_parser(
        "export", help="write the corrections to a file or data set", parents=[common]
    )
    _add_studies(command)
    command.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="a .jsonl file, or a folder that Hugging Face datasets loads",
    )
    command.add_argument(
        "--latest", action="store_true", help="only the newest correction of each question"
    )
    command.set_defaults(run=_corrections_export)

    command = commands.add_parser(
        "trace",
        help="print the model version of an answer and its training corrections",
        parents=[common],
    )
    _add_studies(command)
    command.add_argument("id", metavar="ANSWER_ID")
    command.set_defaults(run=_trace)

    adapters = _group(commands, "adapters", "list, activate and remove adapters")
    for name, help_text, run in (
        ("list", "print the published adapters", _adapters_list),
        ("activate", "activate an adapter", _adapters_activate),
        ("rollback", "activate the previous adapter again", _adapters_rollback),
        ("prune", "delete the weights of old adapters, but keep their manifests", _adapters_prune),
    ):
        command = adapters.add_parser(name, help=help_text, parents=[common])
        _add_studies(command)
        command.add_argument(
            "--model", metavar="NAME", help="a served model; default: the server's default model"
        )
        if name == "activate":
            command.add_argument("id", help=f"such as a-0003, or {BASE} for the base model")
        if name == "prune":
            command.add_argument(
                "--keep",
                type=int,
                default=20,
                metavar="N",
                help="number of newest adapters to keep (20)",
            )
        command.set_defaults(run=run)

    command = commands.add_parser(
        "bench", help="evaluate a model on RadVLBench, with controls", parents=[common]
    )
    benchmark.add_arguments(command)

    models.add_commands(_group(commands, "models", "list and check the models"), common)

    commands.add_parser(
        "train", help="fine-tune a vision-language model on the corrections", add_help=False
    )
    studies = _group(commands, "reader-study", "blinded rating of texts by radiologists")
    reader_study.add_commands(studies, common)
    return parser


def _group(commands: Any, name: str, help_text: str) -> Any:
    parser = commands.add_parser(name, help=help_text, description=help_text)
    return parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")


def _add_ask_arguments(command: argparse.ArgumentParser, name: str) -> None:
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


def _add_studies(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--studies", metavar="DIR", required=True, help="the server's folder of studies"
    )


def _folder(studies: str) -> Path:
    folder = Path(studies)
    if not folder.is_dir():
        raise RequestError(f"--studies: {studies} is not a folder; give the folder of studies")
    return folder


def _store(args: argparse.Namespace) -> AdapterStore:
    return AdapterStore(store_path(_folder(args.studies), args.model))


# Loading and answering -------------------------------------------------------------------------


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


# Text output -----------------------------------------------------------------------------------


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2)


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


def _correction_text(correction: Correction) -> str:
    question = correction.question or correction.task
    where = f" in {region_key(correction.region)}" if correction.region else ""
    lines = [
        f"{correction.created}  {correction.verdict} by {correction.author}  {correction.id}",
        f"  {', '.join(correction.images)}{where}: {question}",
        f"  model:  {correction.model_text}",
    ]
    if correction.verdict == "edited" or correction.text.strip() not in (
        "",
        correction.model_text.strip(),
    ):
        lines.append(f"  reader: {correction.text}")
    return "\n".join(lines)


def _active_text(args: argparse.Namespace, adapter: str | None) -> str:
    return _json({"active": adapter}) if args.json else f"active: {adapter or BASE}"


if __name__ == "__main__":
    raise SystemExit(main())
