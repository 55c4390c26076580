"""A rounded weight with a low-rank helper: ``W_hat + (L diag(gamma)) R``, one weight in the forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant.formats.granularity import Layout
from quant.formats.quantizer import Quantizer
from quant.layers.encoded import EncodedWeight
from quant.training.policy import own_rank
from quant.training.sides import Master


class Helped(Master):
    """A master weight, learned scales and zero points, and what rounding lost in few directions.

    Parameters
    ----------
    weight : tensor
    quantizer : Quantizer
    layout : "linear_weight" or "conv_weight"
    rank : int
        Of the helper; the layer's own rank at most.
    """

    def __init__(self, weight: Tensor, quantizer: Quantizer, layout: Layout, rank: int) -> None:
        super().__init__(weight, quantizer, layout)
        self.most = min(rank, helper_rank(own_rank(self.master.shape)))
        self.rank = self.most
        # a tensor, filled in place: a CUDA graph reads it anew at every step
        self.factor: Tensor
        self.register_buffer("factor", torch.ones(()), persistent=False)
        if self.most:
            with torch.no_grad():
                lost = self.master - self.quantizer.fake(self.master, self.layout, self.params())
                up, down = factors(lost.flatten(1), self.most)
            self.up, self.down = nn.Parameter(up), nn.Parameter(down)

    def rounded(self) -> Tensor:
        """Round the weight without its helper: what remains."""
        return super().weight()

    def gamma(self) -> Tensor:
        """Factors of the columns: 1 for the half that stays, u for the one that decays, 0 beyond the rank."""
        index = torch.arange(self.most, device=self.master.device)
        kept = (index < self.rank // 2).float()
        return kept + self.factor * ((index < self.rank) & (index >= self.rank // 2)).float()

    def weight(self) -> Tensor:
        if self.rank == 0:
            return self.rounded()
        helper = (self.up * self.gamma()) @ self.down
        return self.rounded() + helper.reshape(self.master.shape)

    def encoded(self) -> EncodedWeight:
        if self.rank:
            raise RuntimeError(
                f"the helper still has rank {self.rank}: it has to vanish before codes are made"
            )
        return super().encoded()

    def at(self, rank: int, factor: float) -> None:
        """Take the state of a step; a layer whose own rank is smaller than the schedule's waits its turn."""
        self.rank = min(rank, self.most)
        self.factor.fill_(factor if self.rank == rank else 1.0)

    @torch.no_grad()
    def cut(self, rank: int) -> bool:
        """Drop all columns beyond `rank` and order the rest anew; True if the factors changed."""
        kept = min(rank, self.most)
        if not self.most or kept == self.rank:
            return False
        self.rank = kept
        self.factor.fill_(1.0)
        up, down = torch.zeros_like(self.up), torch.zeros_like(self.down)
        if kept:
            product = self.up[:, :kept].float() @ self.down[:kept].float()
            up[:, :kept], down[:kept] = factors(product, kept)
        self.up.copy_(up)
        self.down.copy_(down)
        return True


def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Best factors of a rank: ``U S^(1/2)`` and ``S^(1/2) V^T`` of the largest singular values."""
    u, s, vh = torch.linalg.svd(matrix.float(), full_matrices=False)
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).contiguous(), (root[:, None] * vh[:rank]).contiguous()


def helper_rank(most: int) -> int:
    """Largest power of two that is no more than a layer's rank."""
    return 1 << (most.bit_length() - 1)
