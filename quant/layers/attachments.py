"""Small modules that methods hang on a layer: input transforms and side branches.

A transform changes the input before it is quantized and knows how to change the weight so that the product
stays the same; a branch adds to the output. Both say what they are (`spec`), so a checkpoint can rebuild
them from its header; their tensors travel as ordinary state and keep their types when a model is cast: what
is stored is what the ledger counts. To add a part, write the class, list it in
`PARTS`, and say in `quant.checkpoint.specs` what its description may hold.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant.denoisers.inventory import tensor_bytes
from quant.errors import InputError
from quant.layers.activation import ExactBuffers
from quant.layers.rotations import Rotate
from quant.layers.sinks import SinkDrop, SinkRow

LEAST, MOST = 2.0**-14, 2.0**15
"""Ends of smoothing factors: normal numbers in float16, whatever type a model is cast to."""


def usable_factor(factor: Tensor) -> Tensor:
    """Smoothing factors between `LEAST` and `MOST`; 1 for zero, infinity and what is no number.

    In a float16 model a smaller one would be 0, and 0 / 0 in one channel is no number in all outputs; a
    larger one would be infinite and take its channel out.
    """
    usable = torch.isfinite(factor) & (factor > 0)
    return torch.where(usable, factor.clamp(LEAST, MOST), torch.ones_like(factor))


class Smooth(ExactBuffers):
    """Divide each input channel by a factor, multiply the weight's column by it: ``((x + c) / f) (f W)``.

    Parameters
    ----------
    factor : tensor of shape (in,)
        Positive; input channels are the last axis of a linear's input, axis 1 of a convolution's.
    channel_axis : int
        -1 or 1.
    shift : float
        c, added first so that an input with a lower bound fits an unsigned grid; the bias takes it back.
    """

    def __init__(self, factor: Tensor, channel_axis: int = -1, shift: float = 0.0) -> None:
        super().__init__()
        self.channel_axis, self.shift = channel_axis, shift
        self.register_buffer("factor", factor)

    def forward(self, x: Tensor) -> Tensor:
        """Smooth an input."""
        shape = [1] * x.ndim
        shape[self.channel_axis] = -1
        shifted = x + self.shift if self.shift else x
        return shifted / self.factor.to(x.dtype).reshape(shape)

    def to_weight(self, weight: Tensor) -> Tensor:
        """Scale the weight's columns: the weight to quantize."""
        return weight * self._columns(weight)

    def from_weight(self, weight: Tensor) -> Tensor:
        """Undo `to_weight`, so errors can be measured against the original weight."""
        return weight / self._columns(weight)

    def _columns(self, weight: Tensor) -> Tensor:
        return self.factor.to(weight.dtype).reshape([1, -1] + [1] * (weight.ndim - 2))

    def spec(self) -> dict[str, Any]:
        """JSON description for `build`."""
        shift = {"shift": self.shift} if self.shift else {}
        return {
            "kind": "smooth",
            "channel_axis": self.channel_axis,
            **shift,
            "shapes": {"factor": list(self.factor.shape)},
        }

    @classmethod
    def blank(cls, spec: dict[str, Any]) -> Smooth:
        """Rebuild without values."""
        return cls(torch.empty(spec["shapes"]["factor"]), spec["channel_axis"], spec.get("shift", 0.0))


class LowRank(ExactBuffers):
    """Add ``x down^T up^T`` to a linear layer's output, on the untouched input.

    Parameters
    ----------
    down : tensor of shape (rank, in)
    up : tensor of shape (out, rank)
    """

    def __init__(self, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.register_buffer("down", down.contiguous())  # a file keeps values, not strides
        self.register_buffer("up", up.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Contribution of the branch."""
        return nn.functional.linear(nn.functional.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))

    def weight(self) -> Tensor:
        """Multiply ``up down``, (out, in): what the branch adds to the layer's weight."""
        return self.up.float() @ self.down.float()

    def spec(self) -> dict[str, Any]:
        """JSON description for `build`."""
        return {"kind": "low_rank", "shapes": {"down": list(self.down.shape), "up": list(self.up.shape)}}

    @classmethod
    def blank(cls, spec: dict[str, Any]) -> LowRank:
        """Rebuild without values."""
        return cls(torch.empty(spec["shapes"]["down"]), torch.empty(spec["shapes"]["up"]))


PARTS: dict[str, Any] = {"smooth": Smooth, "low_rank": LowRank, "rotate": Rotate}
PARTS.update({"sink_drop": SinkDrop, "sink_row": SinkRow})


def build(spec: dict[str, Any] | None, tensors: dict[str, Tensor]) -> nn.Module | None:
    """Rebuild a part from its `spec` and its state tensors; what comes from a file is checked before."""
    if spec is None:
        return None
    if spec.get("kind") not in PARTS:
        raise InputError(f"unknown part {spec.get('kind')!r} in the checkpoint, known: {', '.join(PARTS)}")
    with torch.device("meta"):  # the tensors are at hand: nothing of the described size is made
        part = PARTS[spec["kind"]].blank(spec)
    for name, tensor in tensors.items():
        setattr(part, name, tensor)
    return part


def part_bytes(part: nn.Module | None) -> int:
    """Bytes of a part's tensors."""
    return 0 if part is None else sum(tensor_bytes(t) for t in part.state_dict().values())
