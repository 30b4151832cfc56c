"""`radfound models`: list the models of the settings, and check one."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from radfound.exceptions import RequestError


def add_commands(group: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to a group of subparsers; `common` holds the shared arguments."""
    command = group.add_parser("list", help="print the models of a settings file", parents=[common])
    _add_file(command, required=True)
    command.set_defaults(run=_list)

    command = group.add_parser(
        "check", help="load a model and ask it about three synthetic studies", parents=[common]
    )
    command.add_argument(
        "name",
        metavar="MODEL",
        help="a name in the settings file, radfound-mini, a folder, or openai:ADDRESS#NAME",
    )
    _add_file(command, required=False)
    command.add_argument(
        "--send-images-to",
        action="append",
        default=[],
        metavar="HOST",
        help="another machine that may receive images",
    )
    command.add_argument(
        "--adapter", type=Path, metavar="DIR", help="an adapter, to see whether it changes anything"
    )
    command.set_defaults(run=_check)


def _add_file(command: argparse.ArgumentParser, required: bool) -> None:
    command.add_argument(
        "--models", type=Path, required=required, metavar="FILE", help="the settings of the models"
    )


def _list(args: argparse.Namespace) -> str:
    from radfound.engine.models.settings import load_models

    models = load_models(args.models)
    if args.json:
        found = [
            {
                "name": model.name,
                "backend": model.backend,
                "place": model.place,
                "recipe": model.recipe,
                "default": model.name == models.default,
            }
            for model in models.models
        ]
        return json.dumps({"models": found}, indent=2)
    width = max(len(model.name) for model in models.models)
    return "\n".join(
        f"{'*' if model.name == models.default else ' '} {model.name:<{width}}  {model.backend:<12}  "
        f"{model.place}"
        for model in models.models
    )


def _check(args: argparse.Namespace) -> str:
    from radfound.engine.models.build import build_backend
    from radfound.engine.models.check import check_model, lines
    from radfound.engine.models.settings import load_models, one_model

    if args.adapter is not None and not args.adapter.exists():
        raise RequestError(f"--adapter: there is no {args.adapter}; expected an adapter's folder")
    models = (
        load_models(args.models, args.send_images_to)
        if args.models
        else one_model(args.name, args.send_images_to)
    )
    model = models.named(args.name) if args.models else models.named()
    began = time.monotonic()
    backend = build_backend(model, models.send_images_to)
    try:
        report = check_model(backend, load_s=time.monotonic() - began, adapter=args.adapter)
    finally:
        backend.close()
    return json.dumps(asdict(report), indent=2) if args.json else "\n".join(lines(report))
