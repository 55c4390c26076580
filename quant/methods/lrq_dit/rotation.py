"""What is measured on a layer's inputs, and the rotation that follows from it."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.denoisers.inventory import LayerInfo
from quant.layers.attachments import usable_factor
from quant.layers.rotations import (
    Rotate,
    blockwise,
    chain_matrix,
    chain_signs,
    factors_of,
    index_dtype,
    orthogonal,
    step_matrix,
)
from quant.methods.lrq_dit.config import LrqDitConfig

_KEPT_ROWS = 128


class InputStats:
    """Running summary of one layer's inputs: channel maxima, sum of squares, for salient layers some rows.

    Attributes
    ----------
    absmax : tensor of shape (K,)
    rows : tensor of shape (at most 128, K) or None
        Those with the largest entries, kept only in the second pass.
    """

    def __init__(self, channel_axis: int) -> None:
        self.channel_axis = channel_axis
        self.absmax: Tensor | None = None
        self.squares: Tensor | float = 0.0  # on the inputs' device: reading it makes a GPU wait
        self.count = 0
        self.rows: Tensor | None = None

    def update(self, x: Tensor) -> None:
        """Take in one batch of inputs."""
        rows = x.movedim(self.channel_axis, -1).flatten(0, -2)
        peak = rows.abs().amax(0).float()
        self.absmax = peak if self.absmax is None else torch.maximum(self.absmax, peak)
        # float32 first: in float16 the square of 256 is infinite
        squares = rows.to(torch.promote_types(rows.dtype, torch.float32)).square()
        self.squares = self.squares + squares.sum(dtype=torch.float64)
        self.count += rows.numel()

    def keep(self, x: Tensor) -> None:
        """Keep the rows with the largest entries."""
        rows = x.movedim(self.channel_axis, -1).flatten(0, -2).float()
        rows = rows if self.rows is None else torch.cat([self.rows, rows])
        top = rows.abs().amax(1).topk(min(_KEPT_ROWS, len(rows))).indices
        self.rows = rows[top.sort().values].clone()

    @property
    def j(self) -> float:
        """The decision metric J = ||X||_F / sqrt(B N C): the root mean square of the inputs."""
        return (float(self.squares) / self.count) ** 0.5 if self.count else 0.0


def smoothing_factor(absmax: Tensor, weight: Tensor, strength: float) -> Tensor:
    """Factor (K,) that inputs are divided by: ``max|x|^(1-a) / max|w|^a``; 1 where either is zero.

    Rounded to the weight's type, so that a model in half precision divides inputs by what its weights were
    multiplied by; bounded as `usable_factor` says.
    """
    dims = [axis for axis in range(weight.ndim) if axis != 1]
    columns = weight.detach().float().abs().amax(dims)
    factor = absmax.to(columns) ** (1 - strength) / columns**strength
    # bounded first: in float16 a large one would be infinite, and so 1
    return usable_factor(factor).to(weight.dtype).to(columns)


def can_rotate(layer: LayerInfo) -> bool:
    """Whether channels may be mixed, and a product of small factors has their number."""
    return layer.groups == 1 and factors_of(layer.shape[1]) is not None


def block_of(count: int, largest: int) -> int:
    """Block of the outlier-aware rotation: the largest power of two that divides `count`; 0 below 8."""
    block = min(largest, count & -count)
    return block if block >= 8 else 0


def kind_of(j: float, count: int, config: LrqDitConfig) -> str:
    """Rotation of a layer with metric `j`, "hadamard" or "outlier"."""
    if not block_of(count, config.block):
        return "hadamard"
    if config.rotation == "adaptive":
        return "outlier" if j >= config.threshold else "hadamard"
    return config.rotation


def outlier_rotation(
    rows: Tensor, config: LrqDitConfig, channel_axis: int, factor: Tensor | None, seed: int
) -> Rotate:
    """DuQuant's R2 P R1 from the rows with the largest inputs (R, K), smoothed already."""
    block = block_of(rows.shape[1], config.block)
    first = greedy(rows, block, config.greedy_steps, seed)
    turned = blockwise(rows, chain_matrix(tuple(first), block, seed, rows.dtype, rows.device))
    order = zigzag(turned.amax(0) - turned.amin(0), block)
    second = greedy(turned[:, order], block, config.greedy_steps, seed + 1)
    return Rotate(
        rows.shape[1],
        channel_axis,
        factor,
        order.to(index_dtype(rows.shape[1])),
        block=block,
        moves=(first, second),
        seed=seed,
    )


def greedy(rows: Tensor, block: int, steps: int, seed: int) -> list[int]:
    """Channel brought to the front in each step: that of the largest entry; the prefix with the least peak.

    The peak is max - min over all entries. As the paper says and unlike the released code, the step aims at
    the entry's channel, not at its row.
    """
    x = rows.double().reshape(-1, block)
    base = orthogonal("hadamard", block, torch.float64, torch.device("cpu")).to(x.device)
    moves: list[int] = []
    best, kept = (x.amax() - x.amin()).item(), 0
    for signs in chain_signs(seed, steps, block):
        moves.append(int(x.abs().argmax()) % block)
        x = x @ step_matrix(base, signs.to(x.device), moves[-1]).T
        peak = (x.amax() - x.amin()).item()
        if peak < best:
            best, kept = peak, len(moves)
    return moves[:kept]


def zigzag(spread: Tensor, block: int) -> Tensor:
    """Permutation (K,) that deals channels, widest first, to the blocks in turn and back again."""
    ranked = torch.argsort(spread, descending=True, stable=True)
    rounds = ranked.reshape(block, -1).clone()  # each row gives one channel to every block
    rounds[1::2] = rounds[1::2].flip(1)
    return rounds.T.reshape(-1)
