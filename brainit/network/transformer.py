"""Cross-transformer: learned queries read the brain tokens (Brain-IT, derived from the CrossMAE decoder).

Cross block 0, then ``depth`` times [self-attention block on the brain tokens; cross block queries <- brain
tokens].
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from brainit.errors import InputError


class Attention(nn.Module):
    """Multi-head attention without biases on q, k, v."""

    def __init__(self, width: int, heads: int, *, project_query: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise InputError(f"width {width} is not a multiple of heads {heads}; choose a multiple")
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False) if project_query else None
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, query: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """Attend from ``query`` (B, Q, D) to ``source`` (B, K, D)."""
        q = query if self.to_q is None else self.to_q(query)
        k, v = self.to_kv(source).chunk(2, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def weights(self, query: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        """Return attention weights averaged over heads, (B, Q, K)."""
        q = query if self.to_q is None else self.to_q(query)
        k, _ = self.to_kv(source).chunk(2, -1)
        q, k = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k))
        return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1).mean(1)


def _mlp(width: int, ratio: float, dropout: float) -> nn.Sequential:
    hidden = int(width * ratio)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))


class SelfBlock(nn.Module):
    """Pre-norm self-attention and MLP on the brain tokens."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = _mlp(width, mlp_ratio, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Update brain tokens of shape (B, K, D)."""
        normed = self.norm1(tokens)
        tokens = tokens + self.dropout(self.attention(normed, normed))
        return tokens + self.dropout(self.mlp(self.norm2(tokens)))


class CrossBlock(nn.Module):
    """Queries, used raw, read the normalised brain tokens; the query stream gets the result added."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.norm_source, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, project_query=False)
        self.mlp = _mlp(width, mlp_ratio, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Update queries (B, Q, D) from brain tokens (B, K, D)."""
        y = self.dropout(self.attention(queries, self.norm_source(tokens)))
        return queries + y + self.dropout(self.mlp(self.norm(y)))


class CrossTransformer(nn.Module):
    """Brain tokens to several groups of output features.

    Parameters
    ----------
    outputs : list of (int, int)
        Number of queries and output channels of each group; each group has its own queries and final Linear.
    width, heads, depth : int
        ``depth`` self blocks and ``depth + 1`` cross blocks.
    mlp_ratio, dropout : float
    init_std : float
        Of the learned queries.
    """

    def __init__(
        self,
        outputs: list[tuple[int, int]],
        *,
        width: int,
        heads: int,
        depth: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        std = 0.1 / (2 * width**0.5) if init_std is None else init_std
        self.queries = nn.ParameterList([nn.Parameter(torch.randn(n, width) * std) for n, _ in outputs])
        shape = (width, heads, mlp_ratio, dropout)
        self.self_blocks = nn.ModuleList([SelfBlock(*shape) for _ in range(depth)])
        self.cross_blocks = nn.ModuleList([CrossBlock(*shape) for _ in range(depth + 1)])
        self.heads = nn.ModuleList([nn.Linear(width, channels) for _, channels in outputs])
        for head in self.heads:  # the untrained model says "the mean picture"
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(
        self, tokens: torch.Tensor, positions: list[torch.Tensor | None] | None = None
    ) -> list[torch.Tensor]:
        """Predict every group, or the given positions of it.

        Parameters
        ----------
        tokens : float tensor of shape (B, K, D)
        positions : list of int tensors of shape (P,) or None, optional
            Queries to run in each group; None for all.

        Returns
        -------
        list of float tensors of shape (B, P, channels)
        """
        positions = positions or [None] * len(self.queries)
        chosen = [q if p is None else q[p] for q, p in zip(self.queries, positions, strict=True)]
        stream = torch.cat(chosen).expand(len(tokens), -1, -1)
        stream = self.cross_blocks[0](stream, tokens)
        for own, cross in zip(self.self_blocks, self.cross_blocks[1:], strict=True):
            tokens = own(tokens)
            stream = cross(stream, tokens)
        parts = stream.split([len(q) for q in chosen], 1)
        return [head(part) for head, part in zip(self.heads, parts, strict=True)]

    @torch.no_grad()
    def cluster_weights(self, tokens: torch.Tensor, group: int, query: int) -> torch.Tensor:
        """Attention of one query to the clusters, averaged over heads and cross blocks: (B, K), sums to 1."""
        stream = self.queries[group][query][None].expand(len(tokens), 1, -1)
        seen = []
        for index, cross in enumerate(self.cross_blocks):
            if index:
                tokens = self.self_blocks[index - 1](tokens)
            seen.append(cross.attention.weights(stream, cross.norm_source(tokens))[:, 0])
            stream = cross(stream, tokens)
        return torch.stack(seen).mean(0)
