"""Studies as the frozen vision encoder sees them, encoded once before the first step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm import tqdm

from radfound.datasets.example import Example
from radfound.model.modeling_radfound import (
    RadFoundConnector,
    RadFoundForConditionalGeneration,
    RadFoundVisionModel,
)
from radfound.study.frames import FrameConfig
from training.data.frame_bank import FrameBank, augment


class EncodedStudies:
    """Examples whose frames are encoded by the frozen vision encoder.

    Parameters
    ----------
    examples : sequence of Example
    model : RadFoundForConditionalGeneration
    views : int
        Number of encodings of each study; all but the first are augmented.
    seed : int
    precision : {"bf16", "fp32"}
        Of the encoding.

    Attributes
    ----------
    views : list of lists of bfloat16 tensors, shape (F, N, width)
        Hidden states of each view and study.
    cells : list of lists of bfloat16 tensors, shape (F, cells, channels)
        Cells of the grid; empty lists without grid tokens.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        model: RadFoundForConditionalGeneration,
        views: int = 1,
        seed: int = 0,
        precision: str = "bf16",
    ):
        self.precision = precision
        bank = FrameBank(examples, FrameConfig(model.config.vision_config.image_size, max_frames=8))
        self.examples = bank.examples
        self.views: list[list[torch.Tensor]] = []
        self.cells: list[list[torch.Tensor]] = []
        for view in range(views):
            generator = torch.Generator().manual_seed(seed * 1009 + view) if view else None
            states, cells = self._encoded(bank, model, generator)
            self.views.append(states)
            self.cells.append(cells)

    def __len__(self) -> int:
        return len(self.examples)

    def hidden(self, indices: Sequence[int], view: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return padded hidden states (B, F, N, width) and the frame mask (B, F) of B studies."""
        states = [self.views[view][i] for i in indices]
        most = max(map(len, states))
        mask = torch.tensor([[n < len(h) for n in range(most)] for h in states])
        return _padded(states), mask

    def visual(
        self, connector: RadFoundConnector, indices: Sequence[int], view: int = 0
    ) -> torch.Tensor:
        """Return the visual tokens of B studies, shape (B, T, text width)."""
        device, dtype = connector.queries.device, connector.queries.dtype
        hidden, mask = self.hidden(indices, view)
        cells = _padded([self.cells[view][i] for i in indices]) if self.cells[view] else None
        return connector(
            hidden.to(device, dtype),
            mask.to(device),
            None if cells is None else cells.to(device, dtype),
        )

    @torch.no_grad()
    def _encoded(
        self,
        bank: FrameBank,
        model: RadFoundForConditionalGeneration,
        generator: torch.Generator | None,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return hidden states and cells of each study, of augmented frames if a generator is given."""
        vision, grid = model.vision_model, model.connector.grid
        stem = self._stem_features(bank, vision, generator)
        known: dict[int, torch.Tensor] = {}  # examples of the same frames share an encoding
        encoded, cells = [], []
        for rows in bank.rows:
            first = int(rows[0])
            if first not in known:
                with self._autocast(vision.device):
                    states = vision(
                        stem_features=stem[rows][None].to(vision.dtype),
                        positions_mm=bank.positions_mm[rows][None].to(vision.device),
                        planes=bank.planes[rows][None].to(vision.device),
                        views=bank.views[rows][None].to(vision.device),
                    )
                known[first] = states.last_hidden_state[0].to("cpu", torch.bfloat16)
            encoded.append(known[first])
            if grid is not None:
                cells.append(grid.cells(stem[rows].float()).to("cpu", torch.bfloat16))
        return encoded, cells

    def _stem_features(
        self, bank: FrameBank, vision: RadFoundVisionModel, generator: torch.Generator | None
    ) -> torch.Tensor:
        features = []
        for rows in tqdm(torch.arange(len(bank.pixels)).split(32), desc="encoding", leave=False):
            pixels = bank.pixels[rows]
            moved = augment(pixels, generator) if generator else pixels.float() / 255.0
            with self._autocast(vision.device):
                features.append(vision.stem_features(moved.to(vision.device)).to(torch.bfloat16))
        return torch.cat(features)

    def _autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16")


def _padded(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack tensors of different length, shape (B, longest, ...)."""
    most = max(map(len, parts))
    return torch.stack([torch.cat([p, p.new_zeros(most - len(p), *p.shape[1:])]) for p in parts])
