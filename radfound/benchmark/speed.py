"""Speed of loading and answering, compared with other libraries in the same run.

`python -m radfound.benchmark.speed` prints JSON; `make bench` prints a table. Times are medians of a few runs;
only the ratios are comparable between machines.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from radfound.commands import run_command
from radfound.engine.engine import Engine
from radfound.engine.local.backend import LocalBackend
from radfound.engine.local.model import LocalModel
from radfound.optional import library
from radfound.question import Answer, Question
from radfound.reading import read_study
from radfound.study.frames import FrameConfig, make_frames
from radfound.study.study import Study

logger = logging.getLogger(__name__)
PIPELINE_SIZE = (96, 96, 96)  # a common input size of MONAI's volume models


def phantom(shape: tuple[int, int, int] = (300, 512, 512), seed: int = 0) -> np.ndarray:
    """Return a body-like volume in HU, shape (D, H, W), int16: air, an ellipse of tissue, bone, noise."""
    rng = np.random.default_rng(seed)
    depth, height, width = shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    body = np.where((x / 0.8) ** 2 + (y / 0.6) ** 2 < 1, 40, -1000)
    body[(x**2 + (y - 0.4) ** 2) < 0.01] = 700
    noise = rng.normal(0, 12, (8, height, width)).astype(np.int16)
    return np.stack([(body + noise[k % 8]).astype(np.int16) for k in range(depth)])


def write_nifti(voxels: np.ndarray, path: Path) -> None:
    """Write (D, H, W) voxels of 0.7 x 0.7 x 1 mm as NIfTI, in the usual layout."""
    nibabel.save(nibabel.Nifti1Image(voxels.T, np.diag([-0.7, -0.7, 1.0, 1.0])), path)


def median_seconds(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return median wall times; the runs alternate, so that other load on the machine affects all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def reading(path: Path, repeats: int) -> dict[str, float]:
    """Return the seconds from a volume's file to frames, and those of SimpleITK and MONAI."""
    import SimpleITK

    transforms = library("monai.transforms", "server")
    pipeline = transforms.Compose(
        [
            transforms.LoadImaged("image"),
            transforms.EnsureChannelFirstd("image"),
            transforms.Orientationd("image", axcodes="RAS"),
            transforms.ScaleIntensityRanged("image", -1000, 1000, 0, 1, clip=True),
            transforms.Resized("image", PIPELINE_SIZE),
        ]
    )
    config = FrameConfig()
    return median_seconds(
        {
            "read_study_to_frames": lambda: make_frames(read_study(path), config),
            "simpleitk_read": lambda: SimpleITK.GetArrayViewFromImage(
                SimpleITK.ReadImage(str(path))
            ),
            "monai_dictionary_pipeline": lambda: pipeline({"image": str(path)}),
        },
        repeats,
    )


def first_tokens(engine: Engine, plain: LocalModel, path: Path, repeats: int) -> dict[str, float]:
    """Return the seconds to the first token of a follow-up question, three ways.

    `plain` loads, encodes and generates with `transformers` each time; `no_prefix` has the cached visual
    tokens of the study, `follow_up` also their KV cache.
    """
    study = read_study(path)
    without = Engine(LocalBackend(_local(engine), prefix_bytes=0))
    questions = iter(f"Is there a finding in region {n}?" for n in range(10_000))

    def ask(asked: Engine) -> None:
        asked.answer(study, "vqa", next(questions), max_new_tokens=1, model_only=True)

    def ask_plainly() -> None:
        inputs = plain.processor(read_study(path), next(questions))
        plain.model.generate(**inputs, max_new_tokens=1, do_sample=False)

    for warm_up in (lambda: ask(engine), lambda: ask(without), ask_plainly):
        warm_up()
    runs = {
        "plain": ask_plainly,
        "no_prefix": lambda: ask(without),
        "follow_up": lambda: ask(engine),
    }
    return median_seconds(runs, repeats)


def side_by_side(engine: Engine, study: Study, tokens: int, repeats: int) -> dict[str, float]:
    """Return the seconds for eight reports, requested one after another and concurrently."""

    def ask(_: int = 0) -> Answer:
        return engine.answer(study, "report", max_new_tokens=tokens, model_only=True)

    ask()
    with ThreadPoolExecutor(8) as readers:
        runs = {
            "one_after_another": lambda: [ask() for _ in range(8)],
            "at_once": lambda: list(readers.map(ask, range(8))),
        }
        return median_seconds(runs, repeats)


@torch.no_grad()
def generating(
    engine: Engine, plain: LocalModel, study: Study, tokens: int, repeats: int
) -> dict[str, float]:
    """Return tokens per second for one report, of the engine and of plain `generate`."""
    inputs = plain.processor(study, None, task="report")
    visual = plain.encode(study)
    inputs = {"input_ids": inputs["input_ids"], "visual_embeds": visual}
    count = 0

    def stream() -> None:
        nonlocal count
        count = len(list(local.stream(encoded, Question("report"), tokens)))

    def generate_plainly() -> None:
        plain.model.generate(
            **inputs, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False
        )

    local = _local(engine)
    encoded = local.encode(study)
    seconds = median_seconds({"engine": stream, "plain": generate_plainly}, repeats)
    return {"engine": count / seconds["engine"], "plain_generate": tokens / seconds["plain"]}


def _local(engine: Engine) -> LocalModel:
    """Return the model itself, for comparison with the engine."""
    assert isinstance(engine.backend, LocalBackend)
    return engine.backend.model


def measure(model: str, repeats: int, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Run all measurements and return times with ratios."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        write_nifti(phantom(shape), path)
        files = reading(path, repeats)
        engine, plain = Engine.load(model), LocalModel.load(model)
        study = read_study(path)
        first = first_tokens(engine, plain, path, repeats)
        eight = side_by_side(engine, study, 48, repeats)
        speeds = generating(engine, plain, study, 48, repeats)
    return {
        "model": model,
        "volume": list(shape),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
        },
        "seconds": {"files": files, "first_token": first, "eight_reports": eight},
        "tokens_per_second": speeds,
        "ratios": {
            "frames_to_simpleitk_read": files["read_study_to_frames"] / files["simpleitk_read"],
            "monai_pipeline_to_frames": files["monai_dictionary_pipeline"]
            / files["read_study_to_frames"],
            "first_token_plain_to_follow_up": first["plain"] / first["follow_up"],
            "first_token_no_prefix_to_follow_up": first["no_prefix"] / first["follow_up"],
            "eight_at_once": eight["one_after_another"] / eight["at_once"],
            "tokens_to_plain_generate": speeds["engine"] / speeds["plain_generate"],
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="radfound-mini")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(300, 512, 512), metavar=("D", "H", "W")
    )
    args = parser.parse_args(argv)
    json.dump(measure(args.model, args.repeats, tuple(args.shape)), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    run_command(main)
