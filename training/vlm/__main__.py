"""Train an adapter of a vision-language model on the corrections beside a folder of studies.

`radfound train` runs it; for several GPUs, `accelerate launch -m training.vlm` with the same arguments.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from radfound.cli.adapters import check_line
from radfound.commands import run_command
from radfound.exceptions import RequestError
from radfound.records.state import state_folder
from training.loop.config import Progress
from training.vlm.served import ServedModel, served_model
from training.vlm.study_files import StudyFiles

if TYPE_CHECKING:
    from training.corrections.finetune import FinetuneResult

_SHARED_SETTINGS = ("state", "confirm")
_HYPERPARAMETERS = ("rank", "alpha", "learning_rate", "epochs", "batch_size")


def main(argv: Sequence[str] | None = None) -> int:
    """Train, and print the verdict; return 1 if nothing was published."""
    args = _arguments(argv)
    conf = _conf(args.conf)
    state = state_folder(args.studies, conf.get("state", ""))
    served = served_model(args.models, args.publish_for)
    folder = args.model or served.folder
    if folder is None:
        raise RequestError("--model: missing; expected the folder of the base model")
    result = _train(args, conf, state, served, folder)
    from training.loop.processes import is_first_process

    if not is_first_process():
        return 0
    for check in result.gate["checks"]:
        print(check_line(check))
    print(result.reason)
    return 0 if result.adapter else 1


def _train(
    args: argparse.Namespace,
    conf: Mapping[str, str],
    state: Path,
    served: ServedModel,
    folder: Path,
) -> FinetuneResult:
    """Train on the corrections in a server's state and publish there.

    Parameters
    ----------
    args : Namespace
    conf : mapping of str to str
        The values of `--conf`.
    state : Path
        The server's state folder.
    served : ServedModel
    folder : Path
        Of the base model.
    """
    from radfound.engine.transformers.backend import TransformersBackend
    from radfound.records.adapters import AdapterStore, store_path
    from radfound.records.corrections import CorrectionLog, log_path
    from training.vlm.finetune import VlmConfig, finetune

    backend = TransformersBackend.load(
        folder,
        recipe=args.recipe or served.recipe,
        device=_device(args.device or served.device),
        dtype=args.dtype,
        bits=args.bits or served.bits,
    )
    settings = {name: getattr(args, name) for name in _HYPERPARAMETERS}
    files = StudyFiles(args.studies, state)
    try:
        served.check_revision(backend.describe().revision, folder)
        return finetune(
            CorrectionLog(log_path(state)),
            AdapterStore(store_path(state, served.name)),
            files.read,
            backend,
            config=VlmConfig(
                **settings,
                confirm=int(conf.get("confirm", "1")),
                checkpointing=backend.model.device.type == "cuda",
            ),
            version=files.version,
            cache=store_path(state).parent / "pictures",
            author=args.author,
            progress=_show,
        )
    finally:
        backend.close()


def _device(named: str | None) -> str | None:
    """Return the device of this process: with several, each has a GPU of its own."""
    if named == "cuda" and "LOCAL_RANK" in os.environ:
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return named


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="radfound train", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--studies", type=Path, required=True, metavar="DIR", help="folder that the server serves")
    add(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="the base model's folder; default: that of the served model",
    )
    add(
        "--models",
        type=Path,
        metavar="FILE",
        help="the server's settings file, if it serves several models",
    )
    add(
        "--publish-for",
        metavar="NAME",
        help="the served model that gets the adapter; default: the server's default model",
    )
    add(
        "--conf",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a setting of the server that training shares: state (its state folder) or confirm",
    )
    add("--recipe", help="default: the one that fits the model")
    add("--device", help='such as "cuda"; default: chosen automatically')
    add("--dtype", default="bfloat16", help="default: %(default)s")
    add("--bits", type=int, choices=(4, 8), help="quantise the base model")
    add("--rank", type=int, default=16)
    add("--alpha", type=int, default=16)
    add("--learning-rate", type=float, default=2e-4)
    add("--epochs", type=int, default=8)
    add("--batch-size", type=int, default=4)
    add("--author", default="", help="kept with the adapter")
    args = parser.parse_args(argv)
    if not args.studies.is_dir():
        raise RequestError(f"--studies: there is no folder {args.studies}")
    return args


def _conf(given: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the settings of `--conf`; RequestError for one that training does not share with the server."""
    conf = dict(given)
    for name in conf:
        if name not in _SHARED_SETTINGS:
            expected = " or ".join(_SHARED_SETTINGS)
            raise RequestError(f"--conf: found {name[:40]!r}; expected {expected}")
    if not re.fullmatch("[1-9]", conf.get("confirm", "1")):
        raise RequestError("confirm: expected a number of readers, 1 to 9")
    if (state := conf.get("state")) is not None and not Path(state).is_dir():
        raise RequestError(
            f"state: there is no folder {state}; name the one that the server was started with"
        )
    return conf


def _show(progress: Progress) -> None:
    step = f", step {progress.step} of {progress.total}, loss {progress.loss:.3f}"
    print(progress.message + (step if progress.total else ""), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command(main))
