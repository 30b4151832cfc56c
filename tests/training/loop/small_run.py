"""A small training, to be run in processes of its own: `python small_run.py OUT '{"steps": 40}'`."""

import json
import os
import sys
import time
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import nn

from training.loop.config import LoopConfig
from training.loop.optimise import optimise
from training.loop.weights import whole_state


class Decoder(nn.Module):
    """Two layers, named the way that models of transformers name what is not to be divided."""

    _no_split_modules = ["TransformerEncoderLayer"]

    def __init__(self, dropout):
        super().__init__()
        self.embed = nn.Embedding(32, 32)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(32, 2, 64, dropout, batch_first=True) for _ in range(2)
        )

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], tokens.device)
        hidden = self.embed(tokens)
        for layer in self.layers:
            hidden = layer(hidden, src_mask=mask.to(hidden.dtype), is_causal=True)
        return hidden


class NextToken(nn.Module):
    """A small decoder that learns to continue sequences, with dropout and batch statistics."""

    def __init__(self, dropout=0.1, pause_s=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.decoder = Decoder(dropout)
        self.norm = nn.BatchNorm1d(32) if dropout else nn.LayerNorm(32)
        self.head = nn.Linear(32, 32)
        start = torch.arange(64)
        self.sequences = (start[:, None] + (start % 3 + 1)[:, None] * torch.arange(10)) % 32
        self.pause_s = pause_s

    def logits(self, rows):
        hidden = self.decoder(rows[:, :-1])
        return self.head(self.norm(hidden.flatten(0, 1))).float()

    def error(self, index):
        rows = self.sequences[index]
        return nn.functional.cross_entropy(self.logits(rows), rows[:, 1:].flatten())

    def forward(self, draw):
        time.sleep(self.pause_s)
        loss = self.error(torch.tensor(draw.indices(len(self.sequences))))
        return loss, {"noise": draw.chooser().random()}


def run(folder, objective, stop_after=0, **fields):
    """Train with settings that make use of everything that a checkpoint has to keep."""

    def progress(state):
        if state.step == stop_after:
            os._exit(9)

    wanted = dict(
        steps=40, learning_rate=0.01, batch_size=8, warmup_steps=4, log_every=1, checkpoint_every=4,
        validate_every=5, patience=50, average=0.8,
    )  # fmt: skip
    return optimise(
        objective,
        {1.0: objective.parameters()},
        LoopConfig(**(wanted | fields)),
        folder=folder,
        progress=progress,
        validate=lambda: {"loss": objective.error(torch.arange(0, 64, 5)).item()},
    )


def pretend_gpus():
    """Let Accelerate shard weights on a machine without a GPU, which it would refuse to."""
    torch.distributed.init_process_group("gloo")
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    if given.pop("sharded", False):
        pretend_gpus()
    shape = {name: given.pop(name) for name in ("dropout", "pause_s") if name in given}
    torch.set_num_threads(1)
    trained = NextToken(**shape)
    run(Path(sys.argv[1]), trained, **given)
    state = whole_state(trained)
    if state:
        torch.save(state, Path(sys.argv[1]) / "trained.pt")
