"""Ranges shared by clusters of channels or of positions, in tables by timestep.

A layer's input is seen as (samples, positions, channels): tokens or pixels by channels. At each timestep one
of the two axes is clustered, and the members of a cluster share a range. Stored are, for each timestep, which
axis it is, a label for each index along it, and a scale and zero point a cluster; `expand` turns a row of the
table into parameters that broadcast over the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quant.errors import InputError
from quant.formats.granularity import Layout
from quant.formats.grids import Params

CHANNEL, POSITION = 0, 1
PADDING = 255
"""Label beyond the end of the shorter axis."""


def as_matrix(x: Tensor, layout: Layout) -> Tensor:
    """View an input as (samples, positions, channels).

    Parameters
    ----------
    x : tensor of shape (B, C), (B, ..., C) or, for convolutions, (B, C, *space)
    layout : "linear_input" or "conv_input"
    """
    if layout == "conv_input":
        return x.flatten(2).transpose(1, 2)
    return x.reshape(x.shape[0], -1, x.shape[-1])


def together(each: Sequence[Params]) -> Params:
    """Put parameters of several samples, or the one of all, into parameters of a batch."""
    if len(each) == 1:
        return each[0]
    names = ("scale", "zero_point")
    full = [1, *(torch.broadcast_shapes(*(p["scale"].shape for p in each)))[1:]]
    return {name: torch.cat([p[name].expand(full) for p in each]) for name in names}


def expand(stored: Params, row: int, layout: Layout, shape: torch.Size) -> Params:
    """Parameters for an input of `shape` from one row of a table.

    Parameters
    ----------
    stored : dict
        ``axis`` (T,), ``labels`` (T, n), ``scale`` and ``zero_point`` (T, K).
    row : int
    layout : "linear_input" or "conv_input"
    shape : of the input

    Returns
    -------
    dict
        scale and zero_point, which broadcast over the input; their leading axis has size 1.

    Raises
    ------
    InputError
        Positions were clustered and the input has another number of them.
    """
    conv = layout == "conv_input"
    channels = shape[1] if conv else shape[-1]
    space = shape[2:] if conv else shape[1:-1]
    count = 1
    for size in space:
        count *= size
    along_channels = int(stored["axis"][row]) == CHANNEL
    labels = stored["labels"][row].long()
    known = int((labels != PADDING).sum())
    wanted = channels if along_channels else count
    if known != wanted:
        raise InputError(
            f"input ranges were calibrated for {known} positions, this input has {wanted}: calibrate at this "
            "size, or with axis='channel'"
        )
    inner = (channels, *[1] * len(space)) if conv else (*[1] * len(space), channels)
    outer = (1, *space) if conv else (*space, 1)
    target = (1, *(inner if along_channels else outer))
    return {name: stored[name][row][labels[:wanted]].reshape(target) for name in ("scale", "zero_point")}


def fault(stored: Params, channels: int) -> str | None:
    """Say what is wrong with tables of T rows that came from a file; None if nothing is.

    Parameters
    ----------
    stored : dict
        As for `expand`.
    channels : int
        Of the layer's input.
    """
    axis, labels, scale, zero = (stored[name] for name in ("axis", "labels", "scale", "zero_point"))
    if axis.ndim != 1 or any(x.ndim != 2 for x in (labels, scale, zero)) or scale.shape != zero.shape:
        shapes = ", ".join(f"{name} {tuple(stored[name].shape)}" for name in sorted(stored))
        return f"tables of shapes {shapes}"
    if axis.dtype != torch.uint8 or labels.dtype != torch.uint8:
        return f"axis and labels of {axis.dtype} and {labels.dtype}, both are uint8"
    if bool((axis > POSITION).any()):
        return f"axis {axis.tolist()[:4]}, which is 0 (channels) or 1 (positions)"
    real = labels != PADDING
    if bool((labels[real] >= scale.shape[1]).any()):
        return f"labels up to {int(labels[real].max())} for {scale.shape[1]} clusters"
    counts = real.sum(1)
    if not torch.equal(real, torch.arange(labels.shape[1], device=labels.device) < counts[:, None]):
        return f"labels with gaps (a {PADDING} before the end)"
    wrong = (axis == CHANNEL) & (counts != channels)
    if bool(wrong.any()):
        return f"labels of {int(counts[wrong][0])} channels, the layer has {channels}"
    return None
