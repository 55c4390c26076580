"""Parts that keep sink tokens apart: their output rows are stored, the quantized path never sees them.

A sink is a token whose features are huge and the same for every condition (CLIP's first token). The
transform takes it out of the layer's input, so it is rounded to exactly 0, and the branch adds the row that
the full-precision layer gave. A token that is not the stored one (another text encoder, a learned null
condition) is left where it is and goes the quantized way. Both parts have one slot, possibly empty.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant.layers.activation import ExactBuffers, Known

CLOSE, ORDINARY = 1e-3, 0.05
"""Largest difference to the stored token that is the same token, relative to its largest feature; and to the
feature itself and the median one. The first alone would let features of ordinary size be anything."""


class SinkDrop(ExactBuffers):
    """Put zeros where the sink token stands.

    Parameters
    ----------
    token : tensor of shape (in,)
        Features of the sink.
    position : int64 tensor of shape (1,)
        Where it stands along the token axis; -1: there is none, the slot is empty.
    """

    def __init__(self, token: Tensor, position: Tensor) -> None:
        super().__init__()
        self.register_buffer("token", token)
        self.register_buffer("position", position)
        self.known = Known()

    def forward(self, x: Tensor) -> Tensor:
        """Take the sink out of an input (n, tokens, in)."""
        where = matches(x, self.token, self.position, self.known)
        return x if where is None else x.masked_fill(where, 0.0)

    def spec(self) -> dict[str, Any]:
        """JSON description for `build`."""
        return {"kind": "sink_drop", "shapes": {"token": list(self.token.shape), "position": [1]}}

    @classmethod
    def blank(cls, spec: dict[str, Any]) -> SinkDrop:
        """Rebuild without values."""
        return cls(torch.empty(spec["shapes"]["token"]), torch.full((1,), -1))


class SinkRow(ExactBuffers):
    """Add the sink's stored output row, and the bias to everybody else.

    The layer's own bias is zero then: ``0 + row`` is the row bit for bit, ``bias + (row - bias)`` is not.

    Parameters
    ----------
    token : tensor of shape (in,)
    position : int64 tensor of shape (1,)
    row : tensor of shape (out,)
        The full-precision layer's output for the sink, bias included.
    bias : tensor of shape (out,)
    """

    def __init__(self, token: Tensor, position: Tensor, row: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("token", token)
        self.register_buffer("position", position)
        self.register_buffer("row", row)
        self.register_buffer("bias", bias)
        self.known = Known()

    def forward(self, x: Tensor) -> Tensor:
        """Contribution to the output for the untouched input (n, tokens, in)."""
        out = self.bias.to(x.dtype).expand(*x.shape[:-1], -1)
        where = matches(x, self.token, self.position, self.known)
        return out if where is None else torch.where(where, self.row.to(x.dtype), out)

    def spec(self) -> dict[str, Any]:
        """JSON description for `build`."""
        shapes = {name: list(tensor.shape) for name, tensor in self.named_buffers()}
        return {"kind": "sink_row", "shapes": shapes}

    @classmethod
    def blank(cls, spec: dict[str, Any]) -> SinkRow:
        """Rebuild without values."""
        shapes = spec["shapes"]
        row, bias = torch.empty(shapes["row"]), torch.empty(shapes["bias"])
        return cls(torch.empty(shapes["token"]), torch.full((1,), -1), row, bias)


def matches(x: Tensor, token: Tensor, position: Tensor, known: Known) -> Tensor | None:
    """Mark the sinks in (n, tokens, in): bool (n, tokens, 1), or None if the slot is empty."""
    index = known.get("position", [position, token], lambda: int(position))
    if index < 0 or x.ndim != 3 or index >= x.shape[1]:
        return None
    sink = token.to(x.dtype)
    allowed = known.get(x.dtype, [position, token], lambda: reach(sink))
    where = torch.zeros(*x.shape[:2], 1, dtype=torch.bool, device=x.device)
    where[:, index, 0] = ((x[:, index] - sink).abs() <= allowed).all(-1)
    return where


def reach(token: Tensor) -> Tensor:
    """How far each feature may be from a token's (in,) and be the same token."""
    size = token.abs()
    return torch.minimum(CLOSE * size.amax(), ORDINARY * (size + size.median()))
