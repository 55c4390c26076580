"""The network that reads a message out of a picture; small, convolutional, for any size from 32 pixels on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from quant.adapters.watermark.distortions import blurred

SMALLEST = 32
"""Pixels of a side below which no picture is read."""


class _Conv(nn.Module):
    """Convolution, batch norm while it is there, GELU; plus the input where `skip`."""

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, kernel: int = 3, skip: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.norm(self.conv(x)))
        return x + y if self.skip else y

    def fold(self) -> None:
        """Write the batch norm's running statistics into the convolution."""
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm2d):
            return
        assert norm.running_mean is not None and norm.running_var is not None
        gain = norm.weight.data / (norm.running_var + norm.eps).sqrt()
        assert self.conv.bias is not None
        self.conv.bias.data = (self.conv.bias.data - norm.running_mean) * gain + norm.bias.data
        self.conv.weight.data = self.conv.weight.data * gain[:, None, None, None]
        self.norm = nn.Identity()


class Extractor(ModelMixin, ConfigMixin):
    """Outputs one number a bit, whose sign is the bit.

    Pictures go in with what a blur leaves of them, since a mark is fine texture. The pool at the end lets it
    read any size.

    Parameters
    ----------
    bits : int
        Length of the message.
    width : int
        Channels at half the size; half of it at full size, one and a half of it at a quarter.
    folded : bool
        Without batch norm: what is shipped and what keys are trained against.
    """

    @register_to_config
    def __init__(self, bits: int = 48, width: int = 64, folded: bool = False) -> None:
        super().__init__()
        deep = width * 3 // 2
        self.body = nn.Sequential(
            _Conv(6, width // 2),
            _Conv(width // 2, width, stride=2),
            *(_Conv(width, width, skip=True) for _ in range(3)),
            _Conv(width, deep, stride=2),
            *(_Conv(deep, deep, skip=True) for _ in range(2)),
            _Conv(deep, 2 * deep, kernel=1),
        )
        self.head = nn.Linear(2 * deep, bits)
        if folded:
            self._drop_norms()

    def forward(self, images: Tensor) -> Tensor:
        """Return outputs (n, bits) of `images` (n, 3, h, w) in 0..1."""
        with torch.autocast(images.device.type, enabled=False):  # a mark is lost in bfloat16's rounding
            x = torch.cat([images * 2 - 1, 8 * (images - blurred(images, 1.0))], 1)
        return self.head(self.body(x).mean((2, 3)).float())

    def fold(self) -> None:
        """Become plain convolutions, in place: what a picture reads as no longer depends on a batch."""
        for block in self.body:
            block.fold()
        self.register_to_config(folded=True)

    def _drop_norms(self) -> None:
        for block in self.body:
            block.norm = nn.Identity()

    @torch.no_grad()
    def whiten(self, images: Tensor, batch: int = 512, floor: float = 1e-5) -> None:
        """Make outputs on unmarked pictures centred, uncorrelated and of variance 1, by a change of the head.

        Only then is the number of matching bits near Binomial(bits, 1/2) under the null. Eigenvalues are kept
        above `floor` times their mean: they can be zero.

        Parameters
        ----------
        images : float tensor of shape (n, 3, h, w)
            Unmarked, in 0..1; n is many times the number of bits.
        """
        found = torch.cat([self(x) for x in images.split(batch)]).double()
        mean, centred = found.mean(0), found - found.mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred / (len(found) - 1))
        values = values.clamp_min(floor * float(values.mean()))
        turn = vectors @ torch.diag(values.rsqrt()) @ vectors.T
        weight, bias = self.head.weight.double(), self.head.bias.double()
        self.head.bias.copy_(turn @ (bias - mean))
        self.head.weight.copy_(turn @ weight)
