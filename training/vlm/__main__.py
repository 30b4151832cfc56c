"""Train an adapter of a vision-language model on the corrections beside a folder of studies.

`radfound train` runs it; for several GPUs, `accelerate launch -m training.vlm` with the same arguments.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from radfound.commands import run_command
from radfound.exceptions import NotFoundError, RequestError
from radfound.records.state import state_folder
from radfound.study.study import Study
from training.loop.config import Progress

_SHARED_SETTINGS = ("state", "confirm")
_OUTCOMES = {True: "passed", False: "FAILED", None: "      "}


def main(argv: Sequence[str] | None = None) -> int:
    """Train, and print the verdict; return 1 if nothing was published."""
    parser = argparse.ArgumentParser(prog="radfound train", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--studies", type=Path, required=True, metavar="DIR", help="folder that the server serves"
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="the base model's folder; default: that of the served model",
    )
    parser.add_argument(
        "--models",
        type=Path,
        metavar="FILE",
        help="the server's settings file, if it serves several models",
    )
    parser.add_argument(
        "--publish-for",
        metavar="NAME",
        help="the served model that gets the adapter; default: the server's default model",
    )
    parser.add_argument(
        "--conf",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a setting of the server that training shares: state (its state folder) or confirm",
    )
    parser.add_argument("--recipe", help="default: the one that fits the model")
    parser.add_argument("--device", help='such as "cuda"; default: chosen automatically')
    parser.add_argument("--dtype", default="bfloat16", help="default: %(default)s")
    parser.add_argument("--bits", type=int, choices=(4, 8), help="quantise the base model")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--author", default="", help="kept with the adapter")
    args = parser.parse_args(argv)
    if not args.studies.is_dir():
        raise RequestError(f"--studies: there is no folder {args.studies}")

    conf = _conf(args.conf)
    state = state_folder(args.studies, conf.get("state", ""))
    served = _served(args.models, args.publish_for)
    folder = args.model or served.folder
    if folder is None:
        raise RequestError("--model: missing; expected the folder of the base model")
    device = args.device or served.device
    if device == "cuda" and "LOCAL_RANK" in os.environ:  # one GPU for each process
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    from radfound.engine.transformers.backend import TransformersBackend
    from radfound.records.adapters import AdapterStore, store_path
    from radfound.records.corrections import CorrectionLog, log_path
    from training.loop.processes import is_first_process
    from training.vlm.finetune import VlmConfig, finetune

    backend = TransformersBackend.load(
        folder,
        recipe=args.recipe or served.recipe,
        device=device,
        dtype=args.dtype,
        bits=args.bits or served.bits,
    )
    config = VlmConfig(
        rank=args.rank, alpha=args.alpha, learning_rate=args.learning_rate, epochs=args.epochs,
        batch_size=args.batch_size, confirm=int(conf.get("confirm", "1")), checkpointing=backend.model.device.type == "cuda",
    )  # fmt: skip
    files = StudyFiles(args.studies, state)
    try:
        served.check_revision(backend.describe().revision, folder)
        result = finetune(
            CorrectionLog(log_path(state)),
            AdapterStore(store_path(state, served.name)), files.read, backend,
            config=config, version=files.version, cache=store_path(state).parent / "pictures",
            author=args.author, progress=_show,
        )  # fmt: skip
    finally:
        backend.close()
    if not is_first_process():
        return 0
    for check in result.gate["checks"]:
        print(f"{_OUTCOMES[check['passed']]}  {check['name']}: {check['words']}")
    print(result.reason)
    return 0 if result.adapter else 1


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


@dataclass(frozen=True)
class _Served:
    """The served model that gets the adapter.

    Parameters
    ----------
    name : str or None
        None for the server's default model.
    folder, recipe, device, bits
        As the settings file names them; None if unknown.
    revision : str or None
        With a server of models: the revision whose adapters it takes.
    is_remote : bool
        Whether it runs on a server of models.
    """

    name: str | None = None
    folder: Path | None = None
    recipe: str | None = None
    device: str | None = None
    bits: int | None = None
    revision: str | None = None
    is_remote: bool = False

    def check_revision(self, found: str, folder: Path) -> None:
        """Raise RequestError if the served model would refuse adapters of the weights in a folder."""
        if self.is_remote and self.revision != found:
            raise RequestError(
                f"--models: the revision of the served model is {self.revision or 'not named'}; if its server runs "
                f"the weights of {folder.name}, write `revision: {found}` there, so that it takes their adapters"
            )


def _served(file: Path | None, name: str | None) -> _Served:
    from radfound.engine.models.settings import load_models

    if file is None:
        if name is not None:
            raise RequestError("--publish-for: needs --models FILE, which names the default model")
        return _Served()
    models = load_models(file)
    model = models.named(name)
    if model.backend == "radfound":
        raise RequestError(
            f"--publish-for: {model.name} is trained by its server, POST /train/radfound; expected another model"
        )
    is_remote = model.backend == "openai"
    return _Served(
        None if model.name == models.default else model.name,
        None if is_remote else Path(model.place).expanduser(),
        model.recipe,
        model.device,
        model.bits,
        model.revision,
        is_remote,
    )


class StudyFiles:
    """The studies in a folder by their ids on the server: their paths in the folder, without suffix.

    Parameters
    ----------
    folder : Path
    state : Path, optional
        Folder of the server's state, with the uploads in `.radfound`; by default the folder of studies. An upload
        takes precedence.
    """

    def __init__(self, folder: Path, state: Path | None = None):
        self._folder = folder
        self._uploads = (state or folder) / ".radfound" / "uploads"

    def read(self, image: str) -> Study:
        """Return a study; raises what `read_study` and `path` raise."""
        from radfound.reading import read_study

        return read_study(self.path(image))

    def version(self, image: str) -> str:
        """Return a text that changes when the study's file does."""
        stat = self.path(image).stat()
        return hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()

    def path(self, image: str) -> Path:
        """Return the file or folder of a study; NotFoundError if there is none."""
        from radfound.reading.files import SUFFIXES

        below = PurePosixPath(image)
        if not below.is_absolute() and not any(part.startswith(".") for part in below.parts):
            for root in (self._uploads, self._folder):
                folder = root / below.parent
                for each in sorted(folder.iterdir()) if folder.is_dir() else ():
                    suffix = each.name.removeprefix(below.name).lower()
                    if each.name.startswith(below.name) and suffix in ("", *SUFFIXES):
                        return each
        raise NotFoundError(f"no study {image!r} in {self._folder.name}; put its file back")


def _show(progress: Progress) -> None:
    step = f", step {progress.step} of {progress.total}, loss {progress.loss:.3f}"
    print(progress.message + (step if progress.total else ""), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command(main))
