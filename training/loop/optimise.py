"""Optimiser loop on Hugging Face Accelerate.

A step's data and noise depend on its number and the seed only. A killed and resumed run therefore gives
the same weights as an uninterrupted one, and two processes the same as one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.fsdp import FSDPModule

from radfound.exceptions import TrainingError
from training.loop.checkpoint import Checkpoint
from training.loop.config import Draw, LoopConfig, Progress, learning_rate_factor
from training.loop.processes import is_sharded, new_accelerator, whole_modules
from training.loop.run_log import RunLog
from training.loop.weights import Snapshot, WeightAverage, load_snapshot, take_snapshot

logger = logging.getLogger(__name__)
# State that is saved for resuming, in addition to weights and the smoothed loss.
_RESUMED = ("step", "best_loss", "misses", "stopped")


def optimise(
    objective: nn.Module,
    groups: Mapping[float, Iterable[nn.Parameter]],
    config: LoopConfig,
    *,
    folder: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    validate: Callable[[], dict[str, float]] | None = None,
    picture: Callable[[], torch.Tensor] | None = None,
) -> list[dict[str, float]]:
    """Minimise an objective, resuming from a checkpoint in `folder` if there is one.

    Parameters
    ----------
    objective : module
        `objective(draw)` takes a `Draw` and returns the loss, a scalar tensor averaged over the examples
        of the draw, and a dict of numbers to log. Called under autocast. A checkpoint holds its trainable
        parameters and persistent buffers. Its modules keep their mode (training or evaluation).
    groups : mapping from learning-rate factor to parameters
        All trainable parameters of the objective, and no others.
    config : LoopConfig
    folder : Path, optional
        Folder for `last.pt`, `log.jsonl` and, for TensorBoard, `tensorboard/`.
    progress : callable, optional
        Called every `log_every` steps in every process; an exception from it ends the run.
    validate : callable, optional
        Returns numbers; the lowest "loss" is the best. Called in evaluation mode, without gradients and
        under autocast, in every process; the numbers are averaged over the processes.
    picture : callable, optional
        Returns an image, shape (3, H, W), grey or colour values in [0, 1], for TensorBoard and
        `picture.png`; called like `validate`, at every checkpoint.

    Returns
    -------
    list of dict
        The logged numbers, including those before a resume: "step", "loss", "loss_smooth", the numbers
        of the objective, and those of the validation as "val_…".

    Raises
    ------
    TrainingError
        If settings and objective do not fit, the loss is not finite, or the checkpoint in `folder` belongs
        to another run.
    """
    if config.validate_every and validate is None:
        raise TrainingError("validate_every is set, but this stage has nothing to validate on")
    run = _Run(objective, groups, config, folder, validate, picture)
    try:
        run.go(progress)
    finally:
        run.close()
    return run.log.history


class _Run:
    """The state of one call of `optimise`."""

    def __init__(
        self,
        objective: nn.Module,
        groups: Mapping[float, Iterable[nn.Parameter]],
        config: LoopConfig,
        folder: Path | None,
        validate: Callable[[], dict[str, float]] | None,
        picture: Callable[[], torch.Tensor] | None,
    ):
        self.objective, self.config = objective, config
        self.validate, self.picture = validate, picture
        self.accelerator = _accelerator(config)
        self.own_forward = objective.__dict__.get("forward")
        parameter_groups = _parameter_groups(objective, groups)
        # fused=True: one pass over the memory per step; the default on a CPU takes one per operation.
        optimizer = torch.optim.AdamW(
            parameter_groups, config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        if is_sharded(self.accelerator):
            # Accelerate reads this attribute.
            objective._no_split_modules = whole_modules(objective)
        self.prepared, self.optimizer = self.accelerator.prepare(objective, optimizer)
        self.average = WeightAverage(objective, config.average) if config.average else None
        self.checkpoint = (
            Checkpoint(folder, self.accelerator, objective, self.optimizer, self.average, config)
            if folder
            else None
        )
        self.best: Snapshot | None = None
        self.best_loss, self.misses, self.stopped = math.inf, 0, False
        self.step = 0
        self.smooth = torch.zeros((), device=self.accelerator.device)
        self._resume()
        self.log = RunLog(
            folder if self.accelerator.is_main_process else None,
            type(objective).__name__,
            config.steps,
            self.step,
            visible=self.accelerator.is_main_process,
        )

    def go(self, progress: Callable[[Progress], None] | None) -> None:
        """Run the remaining steps, then load the final weights."""
        config, first, began = self.config, self.step, time.monotonic()
        while self.step < config.steps and not self.stopped:
            loss, numbers = self._learn()
            # Kept on the device: a transfer at every step would synchronise it.
            self.smooth = loss if self.step == 0 else 0.95 * self.smooth + 0.05 * loss
            self.step += 1
            last = self.step == config.steps
            validating = bool(config.validate_every) and (
                last or self.step % config.validate_every == 0
            )
            left = (time.monotonic() - began) / (self.step - first) * (config.steps - self.step)
            if last or validating or self.step % config.log_every == 0:
                record = self._record(loss, numbers)
                if validating:
                    record |= self._validated()
                self.log.write(record, left)
                if progress:
                    progress(Progress(self.step, config.steps, record["loss_smooth"], left))
            self.log.advance()
            if last or self.stopped or self.step % config.checkpoint_every == 0:
                self._save()
        self._finish()

    def close(self) -> None:
        """Restore the objective and free Accelerate's memory, also after an error."""
        self.log.close()
        self.objective.__dict__.pop("_original_forward", None)
        if self.own_forward is None:
            self.objective.__dict__.pop("forward", None)
        else:
            self.objective.forward = self.own_forward
        self.accelerator.free_memory()

    def _learn(self) -> tuple[torch.Tensor, list[dict[str, float]]]:
        """Take one step; return its loss, on the device, and the numbers of its micro-batches."""
        accelerator, config = self.accelerator, self.config
        rate = config.learning_rate * learning_rate_factor(self.step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        total, numbers = torch.zeros((), device=accelerator.device), []
        for micro in range(config.accumulate):
            draw = Draw(
                self.step, micro, config, accelerator.process_index, accelerator.num_processes
            )
            torch.manual_seed(draw.seed)
            with accelerator.accumulate(self.prepared):
                loss, logged = self.prepared(draw)
                accelerator.backward(loss)
                if accelerator.sync_gradients and config.clip_norm:
                    accelerator.clip_grad_norm_(self.objective.parameters(), config.clip_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            total += loss.detach() / config.accumulate
            numbers.append(logged)
        if self.average:
            self.average.update(self.step)
        return total, numbers

    def _record(self, loss: torch.Tensor, numbers: list[dict[str, float]]) -> dict[str, float]:
        value, smooth = self.accelerator.reduce(torch.stack([loss, self.smooth]), "mean").tolist()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {self.step}, expected a finite number; lower the "
                "learning rate, or look for broken examples"
            )
        if self.accelerator.num_processes > 1:
            numbers = gather_object(numbers)
        return {"step": self.step, "loss": value, "loss_smooth": smooth, **_mean(numbers)}

    def _validated(self) -> dict[str, float]:
        """Validate, keep the best weights, and decide whether to stop."""
        assert self.validate is not None
        found = self._evaluated(self.validate)
        if "loss" not in found:
            raise TrainingError(
                f"validation returned {sorted(found)}; expected a 'loss' among them"
            )
        names = sorted(found)
        values = torch.tensor([float(found[name]) for name in names], dtype=torch.float32)
        means = self.accelerator.reduce(values.to(self.accelerator.device), "mean").tolist()
        record = {f"val_{name}": mean for name, mean in zip(names, means, strict=True)}
        if record["val_loss"] < self.best_loss:
            self.best_loss, self.misses = record["val_loss"], 0
            if self.config.patience:
                kept = self.average.values if self.average else None
                self.best = take_snapshot(self.objective, kept)
        else:
            self.misses += 1
        self.stopped = 0 < self.config.patience <= self.misses
        if self.stopped:
            logger.info(
                "stopped at step %d: no lower loss in %d validations", self.step, self.misses
            )
        return record

    def _evaluated(self, function: Callable[[], Any]) -> Any:
        """Call a function on the averaged weights in evaluation mode, then restore weights and modes."""
        modes = {module: module.training for module in self.objective.modules()}
        self.objective.eval()
        swapped = self.average.store(self.objective) if self.average else None
        if isinstance(self.objective, FSDPModule):
            # The function may call parts of the objective, whose weights FSDP would not gather.
            self.objective.unshard()
        try:
            with torch.no_grad(), self.accelerator.autocast():
                return function()
        finally:
            if isinstance(self.objective, FSDPModule):
                self.objective.reshard()
            if swapped:
                load_snapshot(self.objective, swapped)
            for module, mode in modes.items():
                module.training = mode

    def _finish(self) -> None:
        if self.best:
            load_snapshot(self.objective, self.best)
        elif self.average:
            self.average.store(self.objective)

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        if self.picture:
            self.log.picture(self._evaluated(self.picture), self.step)
        state = {name: getattr(self, name) for name in _RESUMED}
        self.checkpoint.write(state | {"smooth": self.smooth.cpu()}, self.best)

    def _resume(self) -> None:
        found = self.checkpoint.read() if self.checkpoint else None
        if found is None:
            return
        state, self.best = found
        for name in _RESUMED:
            setattr(self, name, state[name])
        self.smooth = state["smooth"].to(self.accelerator.device)
        logger.info("resumed at step %d of %d", self.step, self.config.steps)


def _accelerator(config: LoopConfig) -> Accelerator:
    accelerator = new_accelerator(config.precision, config.accumulate)
    parts = config.accumulate * accelerator.num_processes
    if config.batch_size % parts:
        raise TrainingError(
            f"batch_size is {config.batch_size}; expected a multiple of {parts} "
            f"({accelerator.num_processes} processes, accumulate {config.accumulate})"
        )
    return accelerator


def _parameter_groups(
    objective: nn.Module, groups: Mapping[float, Iterable[nn.Parameter]]
) -> list[dict[str, Any]]:
    """Return AdamW's groups: for each factor, matrices, and vectors without weight decay."""
    left = {p: name for name, p in objective.named_parameters() if p.requires_grad}
    found: list[dict[str, Any]] = []
    for factor, group in groups.items():
        matrices: list[nn.Parameter] = []
        vectors: list[nn.Parameter] = []
        for parameter in group:
            if left.pop(parameter, None) is None:
                raise TrainingError(
                    "a parameter to be trained is none of the objective's trainable ones, or is named "
                    "twice; hand over each once"
                )
            (matrices if parameter.ndim > 1 else vectors).append(parameter)
        found.append({"params": matrices, "factor": factor})
        found.append({"params": vectors, "factor": factor, "weight_decay": 0.0})
    if left:
        names = ", ".join(sorted(left.values())[:5])
        raise TrainingError(
            f"{len(left)} trainable parameters of the objective are in no group ({names}, …); "
            "freeze them or add them to a group"
        )
    return [group for group in found if group["params"]]


def _mean(numbers: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each number over the micro-batches that have it."""
    values: dict[str, list[float]] = {}
    for logged in numbers:
        for name, value in logged.items():
            values.setdefault(name, []).append(float(value))
    return {name: sum(found) / len(found) for name, found in values.items()}
