"""`radfound adapters`."""

from __future__ import annotations

import argparse
from typing import Any

from radfound.cli.arguments import add_group, add_studies_command, as_json, studies_folder
from radfound.exceptions import NotFoundError
from radfound.records.adapters import AdapterStore, store_path

BASE = "base"
_OUTCOMES = {True: "passed", False: "FAILED", None: "      "}


def add_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to the program's; `common` holds the shared arguments."""
    group = add_group(commands, "adapters", "list, activate and remove adapters")
    _add(group, "list", "print the published adapters", _list, common)
    command = _add(group, "activate", "activate an adapter", _activate, common)
    command.add_argument("id", help=f"such as a-0003, or {BASE} for the base model")
    _add(group, "rollback", "activate the previous adapter again", _rollback, common)
    help_text = "delete the weights of old adapters, but keep their manifests"
    command = _add(group, "prune", help_text, _prune, common)
    command.add_argument(
        "--keep", type=int, default=20, metavar="N", help="number of newest adapters to keep (20)"
    )


def _add(group: Any, *words: Any) -> argparse.ArgumentParser:
    command = add_studies_command(group, *words)
    command.add_argument(
        "--model", metavar="NAME", help="a served model; default: the server's default model"
    )
    return command


def _list(args: argparse.Namespace) -> str:
    store = _store(args)
    if args.json:
        return as_json(store.to_json())
    lines = [("*" if store.active() is None else " ") + f" {BASE}"]
    for info in store.list():
        mark = "*" if info.active else " "
        lines.append(f"{mark} {info.id}  {info.manifest.get('created', '')}".rstrip())
        lines += _gate_lines(info.manifest)
    for manifest in store.refusals():
        lines.append(f"  refused  {manifest.get('created', '')}".rstrip())
        lines += _gate_lines(manifest)
    return "\n".join(lines)


def _gate_lines(manifest: dict[str, Any]) -> list[str]:
    gate = manifest.get("gate") or {}
    lines = [f"    {check_line(check)}" for check in gate.get("checks", ())]
    if manifest.get("calibration"):
        lines.append(f"    {_OUTCOMES[None]}  confidence: {manifest['calibration']}")
    if gate.get("forced"):
        lines.append(f"    published all the same by {manifest.get('author') or 'someone unnamed'}")
    return lines


def check_line(check: dict[str, Any]) -> str:
    """Return a check of the gate as one line, from a manifest of this version or an earlier one."""
    words = check.get("words") or check.get("told", "")
    return f"{_OUTCOMES[check['passed']]}  {check['name']}: {words}"


def _activate(args: argparse.Namespace) -> str:
    store = _store(args)
    store.activate(None if args.id == BASE else args.id)
    return _active_text(args, store.active())


def _rollback(args: argparse.Namespace) -> str:
    return _active_text(args, _store(args).rollback())


def _prune(args: argparse.Namespace) -> str:
    removed = _store(args).prune(args.keep)
    if args.json:
        return as_json({"pruned": removed})
    return f"pruned: {', '.join(removed)}" if removed else "nothing to prune"


def _store(args: argparse.Namespace) -> AdapterStore:
    folder = store_path(studies_folder(args.studies), args.model)
    if args.model and not folder.is_dir():
        known = sorted(each.parent.name for each in folder.parents[1].glob("*/adapters"))
        raise NotFoundError(
            f"no adapters of a model named {args.model!r} in {args.studies}; models with adapters of "
            f"their own: {', '.join(known) or 'none'}. Leave --model out for the server's default model."
        )
    return AdapterStore(folder)


def _active_text(args: argparse.Namespace, adapter: str | None) -> str:
    return as_json({"active": adapter}) if args.json else f"active: {adapter or BASE}"
