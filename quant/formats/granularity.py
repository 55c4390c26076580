"""Who shares a scale, and whether that is free in a matrix product.

A granularity turns a tensor into a *view* and the axes of it that share one set of parameters; parameters
keep those axes with size 1, so they broadcast. Scales on a row or column axis of the GEMM (tensor, output
channel, token, sample) are free: they are applied once to the finished sum. Scales on the reduction axis
(input channel, group) need a rescale inside the sum.

Layouts: ``linear_weight`` (N, K), ``conv_weight`` (N, C, *kernel), ``linear_input`` (..., K),
``conv_input`` (B, C, *space).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

Layout = Literal["linear_weight", "conv_weight", "linear_input", "conv_input"]
Kind = Literal["tensor", "channel", "token", "sample", "input_channel", "group", "cluster"]


def weight_layout(kind: str) -> Layout:
    """Layout of the weight of a "Linear" or "Conv2d"."""
    return "linear_weight" if kind == "Linear" else "conv_weight"


def input_layout(kind: str) -> Layout:
    """Layout of the input of a "Linear" or "Conv2d"."""
    return "linear_input" if kind == "Linear" else "conv_input"


class View(NamedTuple):
    """A reshaped tensor and the axes over which one parameter is shared."""

    tensor: Tensor
    dims: tuple[int, ...]


class Granularity(BaseModel):
    """Who shares a scale.

    ========================  ==========================================================================
    tensor                    everything
    channel                   each output channel of a weight
    token                     each token of a linear input; each pixel of a convolution's input
    sample                    each image (axis 0) of an input: what a k x k convolution can have for free
    input_channel             each channel of the reduction axis
    group                     `group_size` neighbouring channels of the reduction axis, for every output
                              channel (weights) or token/pixel (inputs); convolution weights group input
                              channels separately at each kernel position
    cluster                   channels or positions of an input, whichever calibration chose, in clusters
                              (`quant.formats.clusters`); always with stored tables
    ========================  ==========================================================================
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Kind = Field(description="who shares a scale")
    group_size: int | None = Field(default=None, ge=2, description="channels a group, for kind 'group'")

    @model_validator(mode="after")
    def _check(self) -> Granularity:
        if (self.kind == "group") != (self.group_size is not None):
            raise ValueError(
                f"group_size belongs to kind 'group' and only there, got {self.kind}, {self.group_size}"
            )
        return self

    @property
    def label(self) -> str:
        """Short name for tables, as `g64` or `token`."""
        return f"g{self.group_size}" if self.kind == "group" else self.kind

    def cost(self, layout: Layout, kernel_size: int = 1) -> Literal["free", "reduction"]:
        """Whether the scale can wait for the finished sum.

        A pixel's scale is free for 1x1 convolutions only: a larger kernel sums over several pixels.
        """
        if self.kind in ("input_channel", "group", "cluster"):  # clusters may be of channels
            return "reduction"
        if self.kind == "token" and layout == "conv_input" and kernel_size > 1:
            return "reduction"
        return "free"

    def view(self, x: Tensor, layout: Layout) -> View:
        """Reshape without changing order; an incomplete last group is filled with its last value."""
        channel_axis = x.ndim - 1 if layout in ("linear_weight", "linear_input") else 1
        if self.kind in ("tensor", "cluster"):
            return View(x, tuple(range(x.ndim)))
        if self.kind in ("channel", "sample"):
            return View(x, tuple(range(1, x.ndim)))
        if self.kind == "token":
            return View(x, (channel_axis,))
        if self.kind == "input_channel":
            return View(x, tuple(axis for axis in range(x.ndim) if axis != channel_axis))
        size = self.group_size or 1
        count = x.shape[channel_axis]
        if count % size:
            # copies, not zeros: they can never widen or narrow the group's range
            index = torch.arange(-(-count // size) * size, device=x.device).clamp(max=count - 1)
            x = x.index_select(channel_axis, index)
        return View(x.unflatten(channel_axis, (-1, size)), (channel_axis + 1,))

    def unview(self, view: Tensor, shape: torch.Size | tuple[int, ...], layout: Layout) -> Tensor:
        """Undo `view`: back to `shape`, filling dropped."""
        if self.kind != "group":
            return view
        channel_axis = len(shape) - 1 if layout in ("linear_weight", "linear_input") else 1
        flat = view.flatten(channel_axis, channel_axis + 1)
        count = shape[channel_axis]
        return flat if flat.shape[channel_axis] == count else flat.narrow(channel_axis, 0, count)

    def allows(self, layout: Layout) -> bool:
        """Whether this kind means something for this layout."""
        if layout.endswith("weight"):
            return self.kind in ("tensor", "channel", "input_channel", "group")
        return self.kind != "channel"
