"""`radfound corrections` and `radfound trace`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from radfound.cli.arguments import add_group, add_studies_command, as_json, studies_folder
from radfound.records import trace as audit
from radfound.records.adapters import AdapterStore, store_path
from radfound.records.answers import AnswerJournal, journal_path
from radfound.records.corrections import Correction, CorrectionLog, log_path
from radfound.study.region import region_key
from radfound.wire import correction_to_json


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to the program's; `common` holds the shared arguments."""
    group = add_group(commands, "corrections", "show, withdraw and export the readers' corrections")
    add = partial(add_studies_command, group, common=common)
    command = add("list", "print the corrections", _list)
    command.add_argument("--image", metavar="ID", help="only those about this image")
    command = add("withdraw", "take a correction back", _withdraw)
    command.add_argument("id", metavar="ID", help="id of the correction")
    command.add_argument("--author", required=True, metavar="NAME", help="who takes it back")
    command = add("verify", "check for changed or removed corrections", _verify)
    command.add_argument("--head", metavar="HASH", help="the head that an earlier call printed")
    command = add("export", "write the corrections to a file or data set", _export)
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
    help_text = "print the model version of an answer and its training corrections"
    command = add_studies_command(commands, "trace", help_text, _trace, common)
    command.add_argument("id", metavar="ANSWER_ID")


def _list(args: argparse.Namespace) -> str:
    log = _log(args)
    found = log.for_image(args.image) if args.image else log.rows()
    if args.json:
        return as_json({"corrections": [correction_to_json(correction) for correction in found]})
    if not found:
        return "no corrections yet"
    return "\n\n".join(_text_of(correction) for correction in found)


def _log(args: argparse.Namespace) -> CorrectionLog:
    return CorrectionLog(log_path(studies_folder(args.studies)))


def _text_of(correction: Correction) -> str:
    question = correction.question or correction.task
    where = f" in {region_key(correction.region)}" if correction.region else ""
    lines = [
        f"{correction.created}  {correction.verdict} by {correction.author}  {correction.id}",
        f"  {', '.join(correction.images)}{where}: {question}",
        f"  model:  {correction.model_text}",
    ]
    is_other = correction.text.strip() not in ("", correction.model_text.strip())
    if correction.verdict == "edited" or is_other:
        lines.append(f"  reader: {correction.text}")
    return "\n".join(lines)


def _withdraw(args: argparse.Namespace) -> str:
    is_new = _log(args).withdraw(args.id, args.author)
    if args.json:
        return as_json({"id": args.id, "withdrawn": is_new})
    return f"{args.id} {'is' if is_new else 'was already'} withdrawn; its row stays in the log"


def _verify(args: argparse.Namespace) -> str:
    found = audit.verify(_log(args), args.head)
    return as_json(vars(found)) if args.json else audit.verification_text(found)


def _export(args: argparse.Namespace) -> str:
    log = _log(args)
    found = log.latest() if args.latest else log.rows()
    path = str(audit.export(found, args.out))
    if args.json:
        return as_json({"corrections": len(found), "path": path})
    return f"{len(found)} corrections written to {path}"


def _trace(args: argparse.Namespace) -> str:
    folder = studies_folder(args.studies)
    found = audit.trace(
        args.id,
        AnswerJournal(journal_path(folder)),
        CorrectionLog(log_path(folder)),
        AdapterStore(store_path(folder)),
    )
    return as_json(audit.trace_to_json(found)) if args.json else audit.trace_text(found)
