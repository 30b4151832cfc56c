"""Train an adapter of a vision-language model on the corrections beside a folder of studies.

`radfound train` runs it; for several GPUs, `accelerate launch -m training.vlm` with the same arguments.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from radfound.commands import run_command
from radfound.exceptions import NotFoundError, RequestError
from radfound.study.study import Study
from training.loop.config import Progress


def main(argv: Sequence[str] | None = None) -> int:
    """Train, and print the verdict; return 1 if nothing was published."""
    parser = argparse.ArgumentParser(prog="radfound train", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--studies", type=Path, required=True, metavar="DIR", help="folder that the server serves"
    )
    parser.add_argument(
        "--model", type=Path, required=True, metavar="FOLDER", help="the base model's folder"
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

    device = args.device
    if device == "cuda" and "LOCAL_RANK" in os.environ:  # one GPU for each process
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    from radfound.engine.transformers.backend import TransformersBackend
    from radfound.records.adapters import AdapterStore, store_path
    from radfound.records.corrections import CorrectionLog, log_path
    from training.loop.processes import is_first_process
    from training.vlm.finetune import VlmConfig, finetune
    from training.vlm.objective import LoraSettings

    backend = TransformersBackend.load(
        args.model, recipe=args.recipe, device=device, dtype=args.dtype, bits=args.bits
    )
    settings = LoraSettings(
        rank=args.rank, alpha=args.alpha, learning_rate=args.learning_rate, epochs=args.epochs,
        batch_size=args.batch_size, checkpointing=backend.model.device.type == "cuda",
    )  # fmt: skip
    files = _Files(args.studies)
    try:
        result = finetune(
            CorrectionLog(log_path(args.studies)), AdapterStore(store_path(args.studies)),
            files.read, backend, config=VlmConfig(settings), version=files.version,
            cache=store_path(args.studies).parent / "pictures", author=args.author,
            progress=_show,
        )  # fmt: skip
    finally:
        backend.close()
    if not is_first_process():
        return 0
    for check in result.verdict.checks:
        print(f"{'passed' if check.passed else 'FAILED'}  {check.name}: {check.words}")
    print(result.reason)
    return 0 if result.adapter else 1


class _Files:
    """The studies in a folder by the ids of MONAI Label's local datastore: file names without their ends."""

    def __init__(self, folder: Path):
        self._folder = folder

    def read(self, image: str) -> Study:
        from radfound.reading import read_study

        return read_study(self._path(image))

    def version(self, image: str) -> str:
        stat = self._path(image).stat()
        return hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()

    def _path(self, image: str) -> Path:
        name = Path(image).name
        found = sorted(each for each in self._folder.glob("*") if each.name.split(".")[0] == name)
        if name != image or not found:
            raise NotFoundError(f"no study {image!r} in {self._folder.name}; put its file back")
        return found[0]


def _show(progress: Progress) -> None:
    print(f"step {progress.step} of {progress.total}, loss {progress.loss:.3f}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(run_command(main))
