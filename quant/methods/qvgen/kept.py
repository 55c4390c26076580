"""A helper that stays: a 16-bit branch on the unrounded input beside the rounded weight, as SVDQuant has."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant.formats.granularity import Layout
from quant.formats.quantizer import Quantizer
from quant.layers.attachments import LowRank
from quant.methods.qvgen.helper import factors
from quant.methods.qvgen.started import as_stored
from quant.training.sides import Master

STORED = torch.bfloat16


class Kept(Master):
    """Top singular directions in a branch, the rest as a master weight with learned scales.

    Parameters
    ----------
    weight : tensor of shape (out, in)
    quantizer : Quantizer
        Of the rest.
    layout : "linear_weight"
    rank : int
        Of the branch; a quarter of the layer's smaller side at most.
    """

    def __init__(self, weight: Tensor, quantizer: Quantizer, layout: Layout, rank: int) -> None:
        wide = weight.detach().float()
        up, down = factors(wide, kept_rank(rank, *wide.shape))
        super().__init__(wide - _as_stored(up) @ _as_stored(down), quantizer, layout)
        self.up, self.down = nn.Parameter(up), nn.Parameter(down)

    def beside(self, x: Tensor) -> Tensor:
        down, up = _as_stored(self.down).to(x.dtype), _as_stored(self.up).to(x.dtype)
        return nn.functional.linear(nn.functional.linear(x, down), up)

    def branch(self) -> LowRank:
        return LowRank(self.down.detach().to(STORED), self.up.detach().to(STORED))


def kept_rank(rank: int, rows: int, columns: int) -> int:
    """Rank of the branch of one layer."""
    return min(rank, max(1, min(rows, columns) // 4))


def _as_stored(x: Tensor) -> Tensor:
    return as_stored(x, STORED)
