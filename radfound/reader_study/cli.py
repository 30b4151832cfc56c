"""`radfound reader-study`: set up, serve, analyse and export. Heavy packages are imported on use."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from radfound.exceptions import RequestError
from radfound.optional import library
from radfound.reader_study.design.config import HOST, PORT


def add_commands(group: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to a group of subparsers; `common` holds the shared arguments."""
    command = group.add_parser("create", help="make a study from a YAML file", parents=[common])
    command.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="see docs/reader-study.md"
    )
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of the new study"
    )
    command.set_defaults(run=_create)

    command = group.add_parser("serve", help="let readers rate in a browser", parents=[common])
    _add_folder(command)
    command.add_argument("--host", default=HOST, help="default: %(default)s")
    command.add_argument("--port", type=int, default=PORT, help="default: %(default)s")
    command.set_defaults(run=_serve)

    command = group.add_parser(
        "analyse", help="write tables and pictures of the ratings", parents=[common]
    )
    _add_folder(command)
    command.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="output folder; default: analysis in the study's folder",
    )
    command.set_defaults(run=_analyse)

    command = group.add_parser(
        "export-corrections",
        help="add the ratings of consenting readers to the log of corrections",
        parents=[common],
    )
    _add_folder(command)
    command.add_argument(
        "--studies",
        type=Path,
        required=True,
        metavar="DIR",
        help="the folder of studies that the server uses",
    )
    command.set_defaults(run=_export)


def _add_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="DIR", help="the study's folder")


def _create(args: argparse.Namespace) -> str:
    from radfound.reader_study.design.create import create
    from radfound.reader_study.design.plan import KEY, TOKENS

    with redirect_stdout(sys.stderr):
        made = create(args.config, args.out)
    if args.json:
        return json.dumps({"folder": str(args.out), "addresses": made.addresses}, indent=2)
    plan = made.plan
    width = max(map(len, made.addresses))
    items = max(len(reader.items) for reader in plan.readers)
    return "\n".join(
        [
            f"{plan.title}: {len(plan.cases)} cases, {len(made.key.sources)} sources, {items} items per reader",
            "",
            *(f"{reader:{width}}  {address}" for reader, address in made.addresses.items()),
            "",
            f"Give each reader their own address; all are listed in {args.out / TOKENS}. Keep {KEY} from the readers.",
            f"Next: radfound reader-study serve {args.out}",
        ]
    )


def _serve(args: argparse.Namespace) -> str:
    if not 0 < args.port < 65536:
        raise RequestError(f"--port: found {args.port}; expected 1 to 65535")
    serve = library("radfound.reader_study.rating.server", "reader-study").serve
    print(f"serving {args.folder} at {args.host}:{args.port}; Ctrl-C stops", file=sys.stderr)
    serve(args.folder, args.host, args.port)
    return "stopped"


def _analyse(args: argparse.Namespace) -> str:
    from radfound.reader_study.analysis.analyse import analyse

    with redirect_stdout(sys.stderr):
        results = analyse(args.folder, args.out)
    text = results.pop("report")
    if args.json:
        from radfound.benchmark.output import without_nan

        return json.dumps(without_nan(results), indent=2)
    return f"{text}\nwritten to {args.out or args.folder / 'analysis'}"


def _export(args: argparse.Namespace) -> str:
    from radfound.reader_study.analysis.export import export_corrections

    if not args.studies.is_dir():
        raise RequestError(f"--studies: {args.studies} is not a folder; give the folder of studies")
    found = export_corrections(args.folder, args.studies)
    if args.json:
        return json.dumps(found, indent=2)
    verdicts = ", ".join(f"{found[name]} {name}" for name in ("accepted", "edited", "rejected"))
    return (
        f"{found['readers']} of {found['asked']} readers agreed; {verdicts}\n"
        f"{found['new']} of these are new in the log"
    )
