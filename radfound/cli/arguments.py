"""What several commands share: arguments, the folder of studies, and JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from radfound.exceptions import RequestError


class Parser(argparse.ArgumentParser):
    """Reports errors in one line, like all other errors."""

    def error(self, message: str) -> NoReturn:
        """Raise RequestError."""
        raise RequestError(f"{message} (see {self.prog} --help)")


def add_group(commands: Any, name: str, help_text: str) -> Any:
    """Add a command that has commands of its own; return their subparsers."""
    parser = commands.add_parser(name, help=help_text, description=help_text)
    return parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")


def add_studies_command(
    group: Any,
    name: str,
    help_text: str,
    run: Callable[[argparse.Namespace], str],
    common: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """Add a command about a server's folder of studies.

    Parameters
    ----------
    group : subparsers
    name, help_text : str
    run : callable
        Returns the text to print.
    common : ArgumentParser
        Holds the arguments of every command.
    """
    command: argparse.ArgumentParser = group.add_parser(name, help=help_text, parents=[common])
    command.add_argument(
        "--studies", metavar="DIR", required=True, help="the server's folder of studies"
    )
    command.set_defaults(run=run)
    return command


def studies_folder(studies: str) -> Path:
    """Return the folder of `--studies`; RequestError if there is none."""
    folder = Path(studies)
    if not folder.is_dir():
        raise RequestError(f"--studies: {studies} is not a folder; give the folder of studies")
    return folder


def as_json(value: dict[str, Any]) -> str:
    """Return a JSON document to print."""
    return json.dumps(value, indent=2)
