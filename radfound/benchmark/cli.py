"""`radfound bench`."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from radfound.exceptions import RequestError


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    _add_model(command.add_argument_group("model"))
    _add_questions(command.add_argument_group("questions"))
    _add_results(command.add_argument_group("results"))
    command.set_defaults(run=_bench)


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        default="radfound-mini",
        help="radfound-mini, a folder of weights, openai:ADDRESS#NAME, or a name in the file of --models",
    )
    group.add_argument(
        "--models",
        type=Path,
        metavar="FILE",
        help="settings file with several models (docs/models.md)",
    )
    group.add_argument(
        "--send-images-to",
        action="append",
        default=[],
        metavar="HOST",
        help="another machine that may receive images",
    )
    group.add_argument("--device", help='such as "cuda"; default: chosen automatically')
    group.add_argument(
        "--at-once",
        type=int,
        default=64,
        metavar="N",
        help="most questions at once; default: %(default)s",
    )


def _add_questions(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--data",
        help="folder of the data kit, your own .jsonl file, or NAME=FOLDER such as slake=data/Slake1.0 (docs/data.md)",
    )
    group.add_argument(
        "--tasks", default="metadata,vqa,caption,report", help="default: %(default)s"
    )
    group.add_argument(
        "--train-questions",
        type=int,
        default=0,
        metavar="N",
        help="also ask about N questions that the model was trained on; default: none",
    )
    group.add_argument(
        "--limit", type=int, metavar="N", help="at most N studies per split, for a trial run"
    )
    group.add_argument("--seed", type=int, default=0, help="default: 0")
    group.add_argument(
        "--calibrate",
        action="store_true",
        help="first fit the confidence calibration on the validation split and save it in the checkpoint's folder",
    )
    group.add_argument(
        "--radeval",
        nargs="?",
        const="radgraph,bertscore",
        default="",
        metavar="SCORES",
        help="also compute these RadEval scores, if RadEval is installed; default: %(const)s",
    )


def _add_results(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="output folder for tables and plots; a run that was ended goes on there",
    )
    group.add_argument(
        "--compare", type=Path, metavar="DIR", help="the --out folder of another model's run"
    )
    group.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="also write competence.json there: the checkpoint's folder, or STUDIES/.radfound of a server",
    )
    group.add_argument(
        "--write-docs",
        type=Path,
        metavar="FILE",
        help="insert the tables between the marks of this Markdown file",
    )
    group.add_argument(
        "--table",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="print the results of several finished runs side by side, and run nothing",
    )


def _bench(args: argparse.Namespace) -> str:
    from radfound.benchmark.bench import Options, bench

    if args.table:
        from radfound.benchmark.output import side_by_side

        return side_by_side(args.table)
    for name in ("data", "out"):
        if getattr(args, name) is None:
            raise RequestError(f"--{name}: missing; expected a folder (see radfound bench --help)")
    if args.at_once < 1:
        raise RequestError(f"--at-once: found {args.at_once}; expected 1 or more")
    if args.limit is not None and args.limit < 2:
        raise RequestError(f"--limit: found {args.limit}; expected 2 or more studies")
    if args.train_questions < 0:
        raise RequestError(f"--train-questions: found {args.train_questions}; expected 0 or more")
    chosen = {name: value for name, value in vars(args).items() if name in Options.__annotations__}
    chosen["send_images_to"] = tuple(chosen["send_images_to"])
    for name in ("tasks", "radeval"):
        chosen[name] = tuple(word for word in chosen[name].split(",") if word)
    with redirect_stdout(sys.stderr):
        results = bench(Options(**chosen))
    text = results.pop("report")
    return (
        json.dumps(results, indent=2, ensure_ascii=False)
        if args.json
        else f"{text}\nwritten to {args.out}"
    )
