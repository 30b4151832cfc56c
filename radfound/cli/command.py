"""The program `radfound`: its commands, and what its errors look like."""

from __future__ import annotations

import argparse
import io
import logging
import os
import subprocess
import sys
from collections.abc import Sequence

from radfound import __version__
from radfound.benchmark import cli as benchmark
from radfound.cli import adapters, ask, corrections
from radfound.cli.arguments import Parser, add_group
from radfound.commands import TRAINING_ENVIRONMENT
from radfound.engine.models import cli as models
from radfound.exceptions import RadFoundError, RequestError
from radfound.reader_study import cli as reader_study


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
        if isinstance(sys.stdout, io.TextIOWrapper):
            # The terminal's encoding may lack a character of the answer.
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


def _train(argv: Sequence[str]) -> int:
    """Run `python -m training.vlm`, which imports this package and is not imported by it; return its status."""
    command = [sys.executable, "-m", "training.vlm", *argv]
    return subprocess.run(command, env={**TRAINING_ENVIRONMENT, **os.environ}).returncode


def _parse(argv: list[str]) -> argparse.Namespace:
    args, rest = _parser().parse_known_args(argv)
    # argparse takes one group of positionals; the question may follow an option: a.nii --json "?"
    unknown = [word for word in rest if word.startswith("-")]
    if unknown or (rest and args.command not in ask.TASKS):
        raise RequestError(f"unknown argument {(unknown or rest)[0]!r} (see radfound --help)")
    if rest:
        args.files = [*args.files, *rest]
    return args


def _parser() -> argparse.ArgumentParser:
    common = Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON document")
    common.add_argument("--verbose", action="store_true", help="log progress to stderr")

    parser = Parser(
        prog="radfound",
        description="Ask a vision-language model for radiology about your images. "
        "Not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"radfound {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for each in (ask, corrections, adapters):
        each.add_commands(commands, common)
    help_text = "evaluate a model on RadVLBench, with controls"
    benchmark.add_arguments(commands.add_parser("bench", help=help_text, parents=[common]))
    models.add_commands(add_group(commands, "models", "list and check the models"), common)
    commands.add_parser(
        "train", help="fine-tune a vision-language model on the corrections", add_help=False
    )
    studies = add_group(commands, "reader-study", "blinded rating of texts by radiologists")
    reader_study.add_commands(studies, common)
    return parser
