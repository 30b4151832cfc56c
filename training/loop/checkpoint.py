"""The checkpoint that a run resumes from: `last.pt` and, for sharded weights, a folder of shards."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from radfound.exceptions import TrainingError
from radfound.records.durable import replacing
from training.loop.config import LoopConfig
from training.loop.processes import is_sharded
from training.loop.weights import Snapshot, WeightAverage, changing, load_snapshot, take_snapshot

# Settings that may change when a run is resumed.
_FREE = {"steps", "log_every", "checkpoint_every", "validate_every", "patience"}


class Checkpoint:
    """Saves and restores the state of a run.

    Parameters
    ----------
    folder : Path
    accelerator : Accelerator
    objective : module
        As `accelerator.prepare` left it.
    optimizer : AcceleratedOptimizer
    average : WeightAverage or None
    config : LoopConfig
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Accelerator,
        objective: nn.Module,
        optimizer: AcceleratedOptimizer,
        average: WeightAverage | None,
        config: LoopConfig,
    ):
        self.path = folder / "last.pt"
        self._accelerator, self._objective, self._optimizer = accelerator, objective, optimizer
        self._average, self._config = average, config
        self._sharded = is_sharded(accelerator)

    def write(self, state: dict[str, Any], best: Snapshot | None) -> None:
        """Replace the checkpoint atomically.

        Parameters
        ----------
        state : dict
            Numbers and small tensors that are equal in every process, including "step".
        best : dict of tensors or None
            The best weights so far.
        """
        whole = {"config": asdict(self._config), **state}
        tensors = self._tensors(best)
        if self._sharded:
            whole |= {"shards": f"shards-{state['step']:08d}", "parts": sorted(tensors)}
            dcp.save(tensors, checkpoint_id=self.path.parent / whole["shards"])
        else:
            whole |= tensors
        if self._accelerator.is_main_process:
            _replace(self.path, whole)
            for older in self.path.parent.glob("shards-*"):
                if older.name != whole.get("shards"):
                    shutil.rmtree(older)
        self._accelerator.wait_for_everyone()

    def read(self) -> tuple[dict[str, Any], Snapshot | None] | None:
        """Restore the checkpoint, if there is one; return the arguments of `write`.

        Raises
        ------
        TrainingError
            If the checkpoint has another model, other settings, or other sharding.
        """
        if not self.path.is_file():
            return None
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        self._check(state)
        if self._sharded:
            wanted = take_snapshot(self._objective) if "best" in state["parts"] else None
            tensors = self._tensors(wanted)
            dcp.load(tensors, checkpoint_id=self.path.parent / state["shards"])
            set_optimizer_state_dict(
                self._objective, self._optimizer.optimizer, tensors["optimizer"]
            )
            return state, tensors.get("best")
        self._check_names(state["model"])
        load_snapshot(self._objective, state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average:
            for name, value in self._average.values.items():
                value.copy_(state["average"][name])
        return state, state.get("best")

    def _tensors(self, best: Snapshot | None) -> dict[str, Any]:
        """Return all large parts, not copied; empty parts are left out."""
        found: dict[str, Any] = {"model": changing(self._objective)}
        if self._sharded:
            found["optimizer"] = get_optimizer_state_dict(
                self._objective, self._optimizer.optimizer
            )
        else:
            found["optimizer"] = self._optimizer.state_dict()
        if self._average:
            found["average"] = self._average.values
        if best:
            found["best"] = best
        return found

    def _check(self, state: dict[str, Any]) -> None:
        other = [
            f"{name} {state['config'].get(name)!r} there, {value!r} here"
            for name, value in asdict(self._config).items()
            if name not in _FREE and state["config"].get(name) != value
        ]
        if other:
            raise TrainingError(
                f"{self.path} is of a run with other settings ({'; '.join(other)}); restore them to "
                "resume, or train into another folder"
            )
        if ("shards" in state) != self._sharded:
            kinds = ("whole", "sharded (FSDP)")
            raise TrainingError(
                f"{self.path} is of a run whose weights were {kinds['shards' in state]}, here they are "
                f"{kinds[self._sharded]}; launch as before, or train into another folder"
            )

    def _check_names(self, saved: Snapshot) -> None:
        own = changing(self._objective)
        differing = sorted(
            set(own) ^ set(saved)
            | {n for n, value in saved.items() if n in own and own[n].shape != value.shape}
        )
        if differing:
            raise TrainingError(
                f"{self.path} is of another model ({len(differing)} tensors differ, such as "
                f"{differing[0]}); train into another folder"
            )


def _replace(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, private=False) as file:
        torch.save(state, file)
