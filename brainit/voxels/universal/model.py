"""The encoder's trained maps: bypass, one attention head a tap from voxel to picture, read-out.

A voxel v has an embedding e_v, which decides where in the picture it looks and what it reads there. At a tap
with features f_p of position p (the backbone's tokens, normalised and brought to a common width),

    α_vp = softmax over p of (W_q e_v) · (W_k f_p + b_p),     u_v = Σ_p α_vp f_p,

without division by a root, then LayerNorm, dropout and a residual MLP; the taps' results stand side by side
and the response is their product with e_v F (Beliy et al. 2024, arXiv 2406.12179).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from brainit.errors import InputError
from brainit.voxels.universal.config import EncoderConfig

_PICTURES, _VOXELS = 32, 2048
"""Pictures and voxels that a prediction takes at once."""


class LowRankBypass(nn.Module):
    """What is added to the residual stream after a block: scale / rank times a product of low rank."""

    def __init__(self, width: int, rank: int, scale: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        self.scale = scale / rank
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.up(self.down(x))


class TapReader(nn.Module):
    """One tap: where voxels look, and what they find there.

    Parameters
    ----------
    width, n_positions : int
        Of the backbone's tokens at this tap.
    features, embedding : int
        Width of what is read; length of a voxel's embedding.
    dropout : float
    """

    def __init__(self, width: int, n_positions: int, features: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.feature = nn.LayerNorm(width), nn.Linear(width, features)
        self.query = nn.Linear(embedding, embedding)
        self.key = nn.Linear(features, embedding, bias=False)  # a bias cancels in the softmax
        self.position = nn.Parameter(torch.randn(n_positions, embedding) * 0.02)
        self.out_norm, self.dropout = nn.LayerNorm(features), nn.Dropout(dropout)
        self.mlp = nn.Sequential(
            nn.Linear(features, 4 * features), nn.GELU(), nn.Linear(4 * features, features)
        )

    def attention(self, features: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return where voxels look, (n, n_voxels, n_positions), rows of sum 1."""
        key = self.key(features) + self.position
        return (self.query(embeddings) @ key.transpose(1, 2)).softmax(-1)

    def forward(self, tokens: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return (n, n_voxels, features) from tokens (n, n_positions, width), embeddings (n_voxels, d)."""
        features = self.feature(self.norm(tokens))
        found = self.dropout(self.out_norm(self.attention(features, embeddings) @ features))
        return found + self.mlp(found)


class UniversalEncoder(nn.Module):
    """Everything that is trained, without the backbone.

    Parameters
    ----------
    width, n_positions, n_blocks : int
        Of the backbone's tokens; blocks up to the last tap.
    config : EncoderConfig
    """

    def __init__(self, width: int, n_positions: int, n_blocks: int, config: EncoderConfig) -> None:
        super().__init__()
        self.config, self.shape = config, (width, n_positions, n_blocks)
        rank = config.bypass_rank
        self.bypass = nn.ModuleList(
            LowRankBypass(width, rank, config.bypass_scale) for _ in range(n_blocks if rank else 0)
        )
        sizes = (config.features, config.embedding, config.dropout)
        self.readers = nn.ModuleList(TapReader(width, n_positions, *sizes) for _ in config.taps)
        n_read = len(config.taps) * config.features
        self.readout = nn.Parameter(torch.randn(config.embedding, n_read) / math.sqrt(config.embedding))
        self.voxels = nn.ParameterDict()
        self.names: dict[str, str] = {}

    def add_subject(self, name: str, n_voxels: int) -> None:
        """Give a subject random embeddings of its own."""
        size, key = self.config.embedding, name.replace(".", "_")  # torch allows no dot in it
        std = self.config.embedding_std or 0.1 / (2 * math.sqrt(size))
        self.voxels[key] = nn.Parameter(torch.randn(n_voxels, size).to(self.readout) * std)
        self.names[name] = key

    def table(self, name: str) -> nn.Parameter:
        """Return a subject's embeddings (n_voxels, d)."""
        if name not in self.names:
            raise InputError(f"voxel encoder: unknown subject {name!r}; known: {', '.join(self.names)}")
        return self.voxels[self.names[name]]

    def embeddings(self) -> dict[str, np.ndarray]:
        """Return every subject's embeddings, float32 (n_voxels, d)."""
        return {name: self.table(name).detach().cpu().numpy().copy() for name in self.names}

    def forward(
        self, tokens: Sequence[torch.Tensor], subject: str, voxels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Predict z-scored responses (n, n_voxels) from the taps' tokens, of all voxels or of some."""
        e = self.table(subject) if voxels is None else self.table(subject)[voxels]
        read = [reader(x, e) for reader, x in zip(self.readers, tokens, strict=True)]
        return (torch.cat(read, -1) * (e @ self.readout)).sum(-1)

    @torch.no_grad()
    def predict(self, tokens: Sequence[torch.Tensor], subject: str) -> torch.Tensor:
        """Predict as `forward` does, in pieces that fit into memory: float32 (n, n_voxels)."""
        n, count = len(tokens[0]), len(self.table(subject))
        out = torch.empty(n, count)
        for i in range(0, n, _PICTURES):
            some = [x[i : i + _PICTURES].to(self.readout) for x in tokens]
            for j in range(0, count, _VOXELS):
                voxels = torch.arange(j, min(j + _VOXELS, count), device=self.readout.device)
                out[i : i + _PICTURES, j : j + _VOXELS] = self(some, subject, voxels).float().cpu()
        return out

    @torch.no_grad()
    def looks(self, tokens: Sequence[torch.Tensor], subject: str, tap: int) -> torch.Tensor:
        """Return where voxels look at tap number ``tap``, mean over pictures: (n_voxels, n_positions)."""
        reader, total = self.readers[tap], 0.0
        for some in tokens[tap].split(_PICTURES):
            features = reader.feature(reader.norm(some.to(self.readout)))
            total = total + reader.attention(features, self.table(subject)).sum(0)
        return (total / len(tokens[tap])).float().cpu()
