"""Orthogonal rotations of the channel axis by small factors, and the transform that applies them.

A rotation R changes input and weight together, ``(x R^T) (W R^T)^T = x W^T``, and is applied to inputs
online. A dense K x K matrix costs as much as the layer, so R is a Kronecker product of factors of at most
`LARGEST` points: Hadamard matrices where an order is known (powers of two and Paley's 12, 20, 24, 28, 36,
...), an orthogonal cosine transform for what is left.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quant.layers.activation import ExactBuffers
from quant.modes import kept

LARGEST = 256
"""Points of the largest factor; channel counts with a larger odd part cannot be rotated."""

_SPLIT = 64  # powers of two are split into factors of at most this many points


def paley_orders(limit: int) -> dict[int, tuple[int, int]]:
    """Hadamard orders up to `limit` by Paley's constructions: order to (construction, prime)."""
    found: dict[int, tuple[int, int]] = {}
    for q in range(3, limit):
        if any(q % d == 0 for d in range(2, int(q**0.5) + 1)):
            continue
        kind, order = (1, q + 1) if q % 4 == 3 else (2, 2 * (q + 1))
        if order <= limit and order not in found:
            found[order] = (kind, q)
    return found


@lru_cache
def hadamard(order: int) -> np.ndarray:
    """Hadamard matrix with entries +-1: Sylvester for powers of two, Paley otherwise.

    Raises
    ------
    ValueError
        No construction here gives this order.
    """
    if order >= 1 and order & (order - 1) == 0:
        from scipy.linalg import hadamard as sylvester

        return sylvester(order).astype(np.float64)
    known = paley_orders(order)
    if order not in known:
        raise ValueError(f"no Hadamard matrix of order {order} from Sylvester's or Paley's constructions")
    kind, q = known[order]
    squares = {(i * i) % q for i in range(1, q)}
    residue = np.array([0] + [1 if i in squares else -1 for i in range(1, q)], dtype=np.float64)
    core = residue[(np.arange(q)[:, None] - np.arange(q)[None]) % q]
    if kind == 1:
        skew = np.zeros((q + 1, q + 1))
        skew[0, 1:], skew[1:, 0], skew[1:, 1:] = 1, -1, core
        return skew + np.eye(q + 1)
    symmetric = np.zeros((q + 1, q + 1))
    symmetric[0, 1:], symmetric[1:, 0], symmetric[1:, 1:] = 1, 1, core
    return np.kron(symmetric, [[1, 1], [1, -1]]) + np.kron(np.eye(q + 1), [[1, -1], [-1, -1]])


def factors_of(count: int) -> tuple[tuple[str, int], ...] | None:
    """Factor a channel count: ("hadamard" | "cosine", points) whose product is `count`; None if impossible.

    A Hadamard order for the odd part times as few powers of two as possible comes first, so that every entry
    of the product has the same magnitude; a cosine transform of the odd part is the fallback.
    """
    odd, power = count, 1
    while odd % 2 == 0:
        odd, power = odd // 2, power * 2
    small: tuple[tuple[str, int], ...] = ()
    if odd > 1:
        orders = paley_orders(min(count, LARGEST))
        extra = next((p for p in (4, 8, 16, 32) if p <= power and odd * p in orders), None)
        if extra is not None:
            small, power = (("hadamard", odd * extra),), power // extra
        elif odd <= LARGEST:
            small = (("cosine", odd),)
        else:
            return None
    powers = []
    while power > 1:
        powers.append(("hadamard", min(power, _SPLIT)))
        power //= powers[-1][1]
    return (*powers, *small)


@kept(128)
def orthogonal(kind: str, points: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Orthonormal factor (points, points); row i holds the weights of output i."""
    if kind == "hadamard":
        matrix = hadamard(points) / np.sqrt(points)
    else:
        index = np.arange(points)
        matrix = np.sqrt(2 / points) * np.cos(np.pi * (index[None] + 0.5) * index[:, None] / points)
        matrix[0] /= np.sqrt(2)
    return torch.from_numpy(matrix).to(dtype).to(device)


def kronecker(x: Tensor, factors: tuple[tuple[str, int], ...], inverse: bool = False) -> Tensor:
    """Multiply the last axis of `x` by the Kronecker product of `factors` (by its transpose: `inverse`)."""
    shape, left, right = x.shape, 1, x.shape[-1]
    for kind, points in factors:
        right //= points
        matrix = orthogonal(kind, points, x.dtype, x.device)
        x = (matrix.T if inverse else matrix) @ x.reshape(-1, left, points, right)
        left *= points
    return x.reshape(shape)


class Rotate(ExactBuffers):
    """Divide channels by a factor, flip signs, rotate: the part methods hang on a layer.

    Without `moves` the rotation is one Kronecker product, behind random signs if `signed`. With `moves` it is
    R2 P R1 on blocks of `block` channels (DuQuant's form): R1 and R2 are chains of steps "bring channel i of
    every block to the front, flip signs, Hadamard", which spread that channel evenly over its block, and P is
    a permutation.

    Parameters
    ----------
    count : int
        Channels K; the last axis of a linear's input, axis 1 of a convolution's.
    channel_axis : int
        -1 or 1.
    factor : float32 tensor of shape (K,), optional
        Smoothing: inputs are divided by it.
    order : int16 or int32 tensor of shape (K,), optional
        The permutation P, of `index_dtype`; None or the identity leaves the channels where they are.
    block : int
        Channels a block, a power of two; used with `moves`.
    moves : two lists of int, optional
        Front channel of each step of R1 and R2; seeds of the signs follow from `seed`.
    seed : int
    signed : bool
        Flip the sign of channels, drawn from `seed`, before the Kronecker product. Without, the constant
        first row of a Hadamard matrix collects the mean of all channels into one outlier, sqrt(K) times it.
    """

    def __init__(
        self, count: int, channel_axis: int = -1, factor: Tensor | None = None, order: Tensor | None = None,
        block: int = 0, moves: tuple[list[int], list[int]] | None = None, seed: int = 0, signed: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.count, self.channel_axis, self.block, self.moves, self.seed, self.signed = (
            count, channel_axis, block, moves, seed, signed,
        )  # fmt: skip
        factors = factors_of(count)
        if moves is None and factors is None:
            raise ValueError(f"{count} channels have an odd part above {LARGEST}: no rotation by factors")
        self.factors = factors or ()
        for name, tensor in (("factor", factor), ("order", order)):
            if tensor is not None:
                self.register_buffer(name, tensor)

    def forward(self, x: Tensor) -> Tensor:
        """Transform an input."""
        if "factor" in self._buffers:
            shape = [1] * x.ndim
            shape[self.channel_axis] = -1
            x = x / self.factor.to(x.dtype).reshape(shape)
        return self._channels_last(x, self.channel_axis, self.rotate)

    def to_weight(self, weight: Tensor) -> Tensor:
        """Counter-transform the weight: the weight to quantize."""
        if "factor" in self._buffers:
            weight = weight * self.factor.to(weight.dtype).reshape([1, -1] + [1] * (weight.ndim - 2))
        return self._channels_last(weight, 1, self.rotate)

    def from_weight(self, weight: Tensor) -> Tensor:
        """Undo `to_weight`."""
        weight = self._channels_last(weight, 1, lambda w: self.rotate(w, inverse=True))
        if "factor" in self._buffers:
            weight = weight / self.factor.to(weight.dtype).reshape([1, -1] + [1] * (weight.ndim - 2))
        return weight

    def rotate(self, x: Tensor, inverse: bool = False) -> Tensor:
        """Multiply the last axis by R (by its transpose: `inverse`)."""
        if self.moves is None:
            if not self.signed:
                return kronecker(x, self.factors, inverse)
            signs = random_signs(self.seed, self.count, x.dtype, x.device)
            return kronecker(x, self.factors, True) * signs if inverse else kronecker(x * signs, self.factors)
        before, after = self.moves
        first = chain_matrix(tuple(before), self.block, self.seed, x.dtype, x.device)
        second = chain_matrix(tuple(after), self.block, self.seed + 1, x.dtype, x.device)
        order = self.order.long() if "order" in self._buffers else torch.arange(self.count, device=x.device)
        if inverse:
            x = blockwise(x, second.T)
            return blockwise(x[..., torch.argsort(order)], first.T)
        return blockwise(blockwise(x, first)[..., order], second)

    @staticmethod
    def _channels_last(x: Tensor, axis: int, change: Any) -> Tensor:
        if axis in (-1, x.ndim - 1):
            return change(x)
        return change(x.movedim(axis, -1)).movedim(-1, axis).contiguous()

    def spec(self) -> dict[str, Any]:
        """JSON description for `quant.layers.attachments.build`."""
        return {
            "kind": "rotate", "count": self.count, "channel_axis": self.channel_axis, "block": self.block,
            "moves": self.moves, "seed": self.seed, "signed": self.signed,
            "shapes": {name: list(tensor.shape) for name, tensor in self._buffers.items()},
        }  # fmt: skip

    @classmethod
    def blank(cls, spec: dict[str, Any]) -> Rotate:
        """Rebuild without values."""
        tensors = {name: torch.empty(shape) for name, shape in spec["shapes"].items()}
        return cls(
            spec["count"], spec["channel_axis"], block=spec["block"], moves=spec["moves"], seed=spec["seed"],
            signed=spec.get("signed", False), **tensors,
        )  # fmt: skip


def index_dtype(count: int) -> torch.dtype:
    """Integers that store a permutation of `count` channels: int16 up to 32,768 channels, then int32."""
    return torch.int16 if count <= 2**15 else torch.int32


def blockwise(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiply every block of the last axis by one matrix (block, block), rows are outputs."""
    size = matrix.shape[0]
    return (x.unflatten(-1, (-1, size)) @ matrix.T).flatten(-2)


@kept(512)
def chain_matrix(
    moves: tuple[int, ...], block: int, seed: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Product of the steps of a chain, (block, block); the identity for no steps.

    Step k swaps channel 0 with ``moves[k]``, flips signs, and applies the Hadamard matrix whose first column
    is constant: the channel at the front goes evenly to all outputs.
    """
    total = torch.eye(block, dtype=torch.float64)
    base = orthogonal("hadamard", block, torch.float64, torch.device("cpu"))
    for signs, move in zip(chain_signs(seed, len(moves), block), moves, strict=True):
        total = step_matrix(base, signs, move) @ total
    return total.to(dtype).to(device)


def chain_signs(seed: int, steps: int, block: int) -> Tensor:
    """Signs (steps, block) of a chain; integers from a seeded generator, the same on every machine."""
    rows = [torch.Generator().manual_seed(seed * 65537 + step) for step in range(steps)]
    drawn = [torch.randint(0, 2, (block,), generator=generator) for generator in rows]
    return torch.stack(drawn).double() * 2 - 1 if drawn else torch.empty(0, block, dtype=torch.float64)


@kept(512)
def random_signs(seed: int, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Signs (count,) from a seeded integer generator, the same on every machine."""
    return chain_signs(seed, 1, count)[0].to(dtype).to(device)


def step_matrix(base: Tensor, signs: Tensor, move: int) -> Tensor:
    """One step of a chain as a matrix."""
    swap = torch.arange(base.shape[0])
    swap[0], swap[move] = move, 0
    return (base * signs)[:, torch.argsort(swap)]
