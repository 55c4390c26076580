"""The multi-basis binarizer: ``w = sum_i sigma_i b_i``, signs from greedy residuals, sigmas learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant.formats.codebooks import BinaryGrid
from quant.formats.granularity import Layout
from quant.formats.grids import Params
from quant.formats.quantizer import Quantizer
from quant.formats.straight import straight
from quant.layers.encoded import EncodedWeight
from quant.training.fake import WeightSide


class Binary(WeightSide):
    """A float32 weight behind its signs.

    The gradient goes through each sign where its residual is at most 1 (with m_i that mask):
    ``dw = g (s1 m1 + s2 m2 (1 - s1 m1))``, ``ds1 = sum g b1 (1 - s2 m2)``, ``ds2 = sum g b2``.

    Parameters
    ----------
    weight : tensor
    quantizer : Quantizer
        On a `BinaryGrid`, by output channel.
    layout : "linear_weight" or "conv_weight"
    learned : bool
        Learn the sigmas; else they follow the weight in closed form.
    """

    def __init__(self, weight: Tensor, quantizer: Quantizer, layout: Layout, learned: bool = True) -> None:
        super().__init__()
        if not isinstance(quantizer.grid, BinaryGrid):
            raise TypeError(f"{quantizer.label} is not a binary format")
        self.quantizer, self.layout, self.learned = quantizer, layout, learned
        self.master = nn.Parameter(weight.detach().float().clone())
        start = quantizer.params(self.master.detach(), layout)["bases"]
        self.bases = nn.ParameterList(nn.Parameter(basis.clone()) for basis in start)

    def sigmas(self) -> list[Tensor]:
        """Scale of each basis, by output channel."""
        if self.learned:
            return list(self.bases)
        return list(self.quantizer.params(self.master.detach(), self.layout)["bases"])

    def weight(self) -> Tensor:
        rest, total = self.master, torch.zeros_like(self.master)
        for sigma in self.sigmas():
            sign = 1.0 - 2.0 * (rest.detach() < 0)
            part = sigma * straight(rest.clamp(-1, 1), sign)
            total, rest = total + part, rest - part
        return total

    def encoded(self) -> EncodedWeight:
        params: Params = {"bases": torch.stack([sigma.detach() for sigma in self.sigmas()])}
        return EncodedWeight.from_weight(self.master, self.quantizer, self.layout, params)
