"""Log of a run: a progress bar or log lines, `log.jsonl`, and curves for TensorBoard."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from radfound.records.durable import replace_text

logger = logging.getLogger(__name__)


class RunLog:
    """The log of one run.

    Parameters
    ----------
    folder : Path or None
        Folder for `log.jsonl`, `tensorboard/` and `picture.png`; None to write no files.
    title : str
    total, start : int
        Number of steps, and of steps already done; records after the latter are removed.
    visible : bool
        Whether to show progress: a bar on a terminal, otherwise log lines.
    """

    def __init__(self, folder: Path | None, title: str, total: int, start: int, *, visible: bool):
        self.history: list[dict[str, float]] = []
        self._folder, self._title, self._total, self._visible = folder, title, total, visible
        self._board: Any = None
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            self._keep_until(folder / "log.jsonl", start)
            self._board = _board(folder / "tensorboard", start)
        self._bar = tqdm(
            total=total,
            initial=start,
            desc=title,
            unit="step",
            file=sys.stderr,
            disable=not (visible and sys.stderr.isatty()),
        )

    def _keep_until(self, path: Path, start: int) -> None:
        """Keep the records up to a step; a killed run may have written later ones."""
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # partial line of a killed run
            if record["step"] <= start:
                self.history.append(record)
        replace_text(path, "".join(json.dumps(r) + "\n" for r in self.history), private=False)

    def write(self, record: dict[str, float], seconds_left: float) -> None:
        """Log the numbers of a step."""
        self.history.append(record)
        if self._folder:
            with open(self._folder / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        if self._board:
            for name, value in record.items():
                if name != "step":
                    kind, _, rest = name.partition("_")
                    tag = f"validation/{rest}" if kind == "val" else f"training/{name}"
                    self._board.add_scalar(tag, value, record["step"])
        shown = {name: f"{value:.4g}" for name, value in record.items() if name != "step"}
        if not self._bar.disable:
            self._bar.set_postfix(shown, refresh=False)
        elif self._visible:
            numbers = ", ".join(f"{name} {value}" for name, value in shown.items())
            logger.info(
                "%s %d/%d: %s; %.0f s left", self._title, record["step"], self._total, numbers,
                seconds_left,
            )  # fmt: skip

    def advance(self) -> None:
        """Move the bar by one step."""
        self._bar.update()

    def picture(self, pixels: torch.Tensor, step: int) -> None:
        """Save an image, shape (3, H, W), values in [0, 1]."""
        if self._folder is None:
            return
        from PIL import Image

        levels = (pixels.detach().float().cpu().clamp(0.0, 1.0) * 255).round().to(torch.uint8)
        Image.fromarray(levels.permute(1, 2, 0).numpy()).save(self._folder / "picture.png")
        if self._board:
            self._board.add_image("picture", levels, step)

    def close(self) -> None:
        """Close the bar and the TensorBoard writer."""
        self._bar.close()
        if self._board:
            self._board.close()


def _board(folder: Path, start: int) -> Any:
    """Return TensorBoard's writer, or None if tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info(
            "tensorboard is not installed: no curves in %s (pip install '.[train]')", folder
        )
        return None
    return SummaryWriter(str(folder), purge_step=start + 1 if start else None)
