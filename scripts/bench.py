"""Benchmarks of docs/benchmarks.md as one Markdown table.

Run through `make bench`. Only the ratios are comparable between machines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import bench_server
import torch

from radfound.benchmark import speed


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="radfound-mini")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512), metavar=("D", "H", "W"))  # fmt: skip
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="file for all numbers, as JSON")
    args = parser.parse_args()
    few = max(2, args.requests // 10)
    found = {
        "alone": speed.measure(args.model, args.repeats, tuple(args.shape)),
        "awake": bench_server.awake(args.model),
        "memory": bench_server.memory(args.model, few, args.requests),
    }
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(
        f"{args.model}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads; medians of {args.repeats}\n"
    )
    print("| measure | RadFound | beside | ratio | target |\n| --- | --- | --- | --- | --- |")
    for row in (*_alone(found["alone"]), *_served(found["awake"], found["memory"])):
        print(f"| {' | '.join(row)} |")


def _alone(found: dict[str, Any]) -> list[tuple[str, ...]]:
    seconds, ratios = found["seconds"], found["ratios"]
    first, eight, files = seconds["first_token"], seconds["eight_reports"], seconds["files"]
    tokens = found["tokens_per_second"]
    return [
        (
            "first token of a follow-up question",
            f"{first['follow_up']:.3f} s",
            f"plain `transformers`: read, encode, generate: {first['plain']:.2f} s",
            *_judged(ratios["first_token_plain_to_follow_up"], 20, "times sooner"),
        ),
        (
            "the same",
            f"{first['follow_up']:.3f} s",
            f"visual tokens cached, no prefix cache: {first['no_prefix']:.3f} s",
            *_judged(ratios["first_token_no_prefix_to_follow_up"], 2, "times sooner"),
        ),
        (
            "eight reports of 48 tokens asked for at once",
            f"{eight['at_once']:.2f} s",
            f"one after another: {eight['one_after_another']:.1f} s",
            *_judged(ratios["eight_at_once"], 3, "times"),
        ),
        (
            "tokens a second, one answer",
            f"{tokens['engine']:.1f}",
            f"plain `generate`, bfloat16: {tokens['plain_generate']:.1f}",
            *_judged(ratios["tokens_to_plain_generate"], 1.5, "times"),
        ),
        (
            "volume file to frames",
            f"{files['read_study_to_frames']:.3f} s",
            f"SimpleITK's bare read: {files['simpleitk_read']:.3f} s",
            *_judged(ratios["frames_to_simpleitk_read"], 1.3, "times as long", most=True),
        ),
        (
            "the same",
            f"{files['read_study_to_frames']:.3f} s",
            f"MONAI's dictionary pipeline: {files['monai_dictionary_pipeline']:.2f} s",
            *_judged(ratios["monai_pipeline_to_frames"], 5, "times faster"),
        ),
    ]


def _served(awake: dict[str, float], memory: dict[str, float]) -> list[tuple[str, ...]]:
    (few, before), (many, after) = memory.items()
    growth = 100 * (after / before - 1)
    info = awake["info_p99_ms"]
    return [
        (
            f"`/info/` while four answers are written, 99th percentile of {awake['calls']:.0f}",
            f"{info:.0f} ms",
            f"stock MONAI Label, asleep as long: {awake['stock_info_p99_ms']:.0f} ms",
            f"{awake['stock_info_p99_ms'] / info:.0f} times sooner",
            f"under 100 ms{'' if info < 100 else ': missed'}",
        ),
        (
            f"memory after {many.split('_')[1]} mixed requests",
            f"{after:.0f} MB",
            f"after {few.split('_')[1]}: {before:.0f} MB",
            f"{growth:+.1f} %",
            f"under 5 % more{'' if growth < 5 else ': missed'}",
        ),
    ]


def _judged(ratio: float, target: float, words: str, most: bool = False) -> tuple[str, str]:
    is_met = ratio <= target if most else ratio >= target
    bound = "at most" if most else "at least"
    return f"{ratio:.2f} {words}", f"{bound} {target:g}{'' if is_met else ': missed'}"


if __name__ == "__main__":
    sys.exit(main())
