"""How fast RadFound reads and answers, beside what others take for the same, in one run.

`python -m radfound.benchmark.speed` prints JSON. Times are medians of a few runs on whatever machine it
is; only the ratios travel.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from radfound.engine import Engine
from radfound.frames import FrameConfig, make_frames
from radfound.reading import read_study
from radfound.study import Study
from radfound.study_model import LocalModel

logger = logging.getLogger(__name__)
PIPELINE_SIZE = (96, 96, 96)  # what MONAI's volume models commonly take


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
    """Write (D, H, W) voxels of 0.7 x 0.7 x 1 mm as NIfTI, stored as other software stores them."""
    nibabel.save(nibabel.Nifti1Image(voxels.T, np.diag([-0.7, -0.7, 1.0, 1.0])), path)


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    """Return the median wall time of a call, after none to warm up."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def reading(path: Path, repeats: int) -> dict[str, float]:
    """Return the seconds to get from a volume's file to frames, and what SimpleITK and MONAI take."""
    import SimpleITK

    from monai.transforms import (  # isort: skip
        Compose,
        EnsureChannelFirstd,
        LoadImaged,
        Orientationd,
        Resized,
        ScaleIntensityRanged,
    )

    pipeline = Compose(
        [
            LoadImaged("image"),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS"),
            ScaleIntensityRanged("image", -1000, 1000, 0, 1, clip=True),
            Resized("image", PIPELINE_SIZE),
        ]
    )
    config = FrameConfig()
    return {
        "read_study": median_seconds(lambda: read_study(path), repeats),
        "read_study_to_frames": median_seconds(
            lambda: make_frames(read_study(path), config), repeats
        ),
        "simpleitk_read": median_seconds(
            lambda: SimpleITK.GetArrayViewFromImage(SimpleITK.ReadImage(str(path))), repeats
        ),
        "monai_dictionary_pipeline": median_seconds(
            lambda: pipeline({"image": str(path)}), repeats
        ),
    }


def answering(engine: Engine, path: Path, repeats: int) -> dict[str, float]:
    """Return the seconds to a first answer from the file, and to a follow-up on the same study."""
    began = time.perf_counter()
    study = read_study(path)
    engine.answer(study, "vqa", "Which imaging modality is this?")
    first = time.perf_counter() - began
    questions = iter(f"Is there a finding in region {n}?" for n in range(repeats))
    return {
        "first_answer": first,
        "follow_up_answer": median_seconds(
            lambda: engine.answer(study, "vqa", next(questions)), repeats
        ),
    }


@torch.no_grad()
def generating(local: LocalModel, study: Study, tokens: int, repeats: int) -> dict[str, float]:
    """Return generated tokens a second, of one answer and of eight at once, by plain `generate`."""
    visual = local.encode(study)
    before, after = local.processor.prompt_ids("report", None)
    ids = torch.tensor([before + after])
    speeds = {}
    for batch in (1, 8):
        inputs = {"input_ids": ids.expand(batch, -1), "visual_embeds": visual.expand(batch, -1, -1)}
        seconds = median_seconds(
            lambda inputs=inputs: local.model.generate(  # type: ignore[misc]
                **inputs, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False
            ),
            repeats,
        )
        speeds[f"batch_{batch}"] = batch * tokens / seconds
    return speeds


def measure(model: str, repeats: int, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Run everything and return the numbers with their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        write_nifti(phantom(shape), path)
        seconds_reading = reading(path, repeats)
        engine = Engine.load(model)
        seconds_answering = answering(engine, path, repeats)
        assert isinstance(engine.model, LocalModel)
        speeds = generating(engine.model, read_study(path), 48, repeats)
    return {
        "model": model,
        "volume": list(shape),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
        },
        "seconds": {**seconds_reading, **seconds_answering},
        "tokens_per_second": speeds,
        "ratios": {
            "frames_to_simpleitk_read": seconds_reading["read_study_to_frames"]
            / seconds_reading["simpleitk_read"],
            "monai_pipeline_to_frames": seconds_reading["monai_dictionary_pipeline"]
            / seconds_reading["read_study_to_frames"],
            "first_to_follow_up_answer": seconds_answering["first_answer"]
            / seconds_answering["follow_up_answer"],
            "batch_8_to_batch_1": speeds["batch_8"] / speeds["batch_1"],
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="radfound-mini")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(300, 512, 512), metavar=("D", "H", "W")
    )
    args = parser.parse_args(argv)
    json.dump(measure(args.model, args.repeats, tuple(args.shape)), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
