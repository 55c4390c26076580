"""Tokens of the backbone for batches of pictures: kept where nothing changes them, else computed again."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from brainit.progress import Progress, silent
from brainit.voxels.universal.backbone import Backbone, shifted
from brainit.voxels.universal.model import UniversalEncoder

_BATCH = 32
_KEPT_BYTES = 2**31
"""Tokens kept in memory at most; beyond, every batch goes through the backbone again."""


class Pictures(Protocol):
    """Pictures by row, such as a tensor or something that reads them from a file."""

    def __len__(self) -> int:
        """Return their number."""

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return pictures (n, 3, h, w) in 0..1."""


class Taps:
    """Source of tokens of one set of pictures.

    Parameters
    ----------
    backbone : Backbone
    encoder : UniversalEncoder
        Whose bypass the pictures go through.
    pictures : Pictures
    device : str
    """

    def __init__(
        self,
        backbone: Backbone,
        encoder: UniversalEncoder,
        pictures: Pictures,
        device: str,
        progress: Progress = silent,
    ) -> None:
        self.backbone, self.encoder, self.pictures = backbone.to(device), encoder, pictures
        self.device, self.config = device, encoder.config
        self.kept: list[torch.Tensor] | None = None
        width, positions, _ = encoder.shape
        size = 2 * len(pictures) * positions * width * len(self.config.taps)
        if not self.config.bypass_rank and not self.config.shift and size <= _KEPT_BYTES:
            self.kept = self._read_all(progress)

    def take(self, rows: np.ndarray, moves: np.ndarray | None = None) -> list[torch.Tensor]:
        """Return the tokens of these rows at every tap.

        ``moves`` (n, 2) in -1..1 shifts the pictures by this share of ``config.shift``, for training.
        """
        index = torch.from_numpy(np.ascontiguousarray(rows))
        if self.kept is not None:
            return [tokens[index].float().to(self.device) for tokens in self.kept]
        images = self.pictures[index].float()
        if moves is not None and self.config.shift:
            pixels = moves * self.config.shift * images.shape[-1] / self.backbone.side
            images = shifted(images, torch.from_numpy(np.rint(pixels).astype(np.int64)))
        bypass = self.encoder.bypass if self.config.bypass_rank else None
        return self.backbone(images.to(self.device), self.config.taps, bypass)

    @torch.no_grad()
    def predict(self, rows: np.ndarray, subject: str) -> torch.Tensor:
        """Predict responses to these rows, float32 (n, n_voxels)."""
        parts = [
            self.encoder.predict(self.take(rows[i : i + _BATCH]), subject)
            for i in range(0, len(rows), _BATCH)
        ]
        return torch.cat(parts) if parts else torch.empty(0, len(self.encoder.table(subject)))

    @torch.no_grad()
    def _read_all(self, progress: Progress) -> list[torch.Tensor]:
        rows, found = np.arange(len(self.pictures)), []
        for i in range(0, len(rows), _BATCH):
            progress(i, len(rows), f"pictures through {self.backbone.name}")
            found.append([x.half().cpu() for x in self.take(rows[i : i + _BATCH])])
        return [torch.cat(parts) for parts in zip(*found, strict=True)]
