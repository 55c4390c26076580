"""Training that begins where SVDQuant ends: its smoothing, its branch, its codes by error feedback."""

from __future__ import annotations

import copy
import hashlib
import json
import math

import torch
from torch import Tensor, nn

from quant.layers.attachments import LowRank, Smooth
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.methods.qvgen.config import QvgenConfig
from quant.methods.svdquant.config import SvdQuantConfig
from quant.methods.svdquant.core import core
from quant.plans.plan import Plan
from quant.recordings.shards import weights_hash
from quant.registry import Context
from quant.training.fake import WeightSide
from quant.training.sides import within

COMMON = ("first", "last", "time", "condition")
BELOW = 0.98
"""Of an outermost level, where a weight beyond it begins."""
SHARES = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
"""Of the way from a code's value to the unrounded weight."""


def as_svdquant(config: QvgenConfig) -> SvdQuantConfig:
    """Return the settings of the start."""
    common = {"keep": COMMON} if config.policy == "common" else {}
    return SvdQuantConfig.model_validate({
        "residual": "gptq", "residual_bits": config.weight_bits, "rank": config.rank, "group": config.group,
        **common,
    })  # fmt: skip


def solve(model: nn.Module, plan: Plan, config: QvgenConfig, context: Context) -> dict[str, LayerResult]:
    """Quantize every planned layer by SVDQuant, or find it where an earlier call has (`Context.solved`)."""
    lines = [line.model_copy(update={"settings": {}}) for line in plan.layers]
    wanted = plan.model_copy(update={"layers": lines})
    if context.solved is None:
        return core(model, wanted, as_svdquant(config), context).layers
    made_from = {
        "layers": [line.model_dump(mode="json") for line in lines], "weights": weights_hash(model),
        "config": as_svdquant(config).model_dump(mode="json"), "seed": context.seed,
        "recording": context.recording.hash, "device": context.device,
    }  # fmt: skip
    key = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    if key not in context.solved:
        context.solved[key] = core(model, wanted, as_svdquant(config), context).layers
    return copy.deepcopy(context.solved[key])  # what is installed may be moved to another device


class Started(WeightSide):
    """A residual behind its codes, with scales in the type of the file, smoothing, and a branch.

    Parameters
    ----------
    result : LayerResult
    near : tensor, optional
        The layer's weight. The master weight begins as near to it as the codes allow, without it at the
        values of the codes: either way nothing is rounded anew before a step is taken.
    """

    def __init__(self, result: LayerResult, near: Tensor | None = None) -> None:
        super().__init__()
        start = result.weight
        self.quantizer, self.layout = start.quantizer, start.layout
        master = start.decode() if near is None else in_cells(residual(near, result), start)
        self.master = nn.Parameter(master)
        self.stored = start.params["scale"].dtype
        self.scale = nn.Parameter(start.params["scale"].float().clone())
        self.register_buffer("least", start.params["scale"].float() * 1e-3)
        self.smooth, self.has_branch = result.transform, isinstance(result.branch, LowRank)
        if isinstance(result.branch, LowRank):
            self.kind = result.branch.down.dtype
            self.down = nn.Parameter(result.branch.down.float())
            self.up = nn.Parameter(result.branch.up.float())

    def inside(self, x: Tensor) -> Tensor:
        return x if self.smooth is None else self.smooth(x)

    def transform(self) -> nn.Module | None:
        return self.smooth

    def weight(self) -> Tensor:
        scale = as_stored(within(self.scale, self.least, math.inf), self.stored)
        return self.quantizer.fake(self.master, self.layout, {"scale": scale})

    def encoded(self) -> EncodedWeight:
        scale = torch.maximum(self.scale, self.least).detach().to(self.stored)
        return EncodedWeight.from_weight(self.master, self.quantizer, self.layout, {"scale": scale})

    def beside(self, x: Tensor) -> Tensor | None:
        if not self.has_branch:
            return None
        down, up = (as_stored(p, self.kind).to(x.dtype) for p in (self.down, self.up))
        return nn.functional.linear(nn.functional.linear(x, down), up)

    def branch(self) -> LowRank | None:
        if not self.has_branch:
            return None
        return LowRank(self.down.detach().to(self.kind), self.up.detach().to(self.kind))


@torch.no_grad()
def residual(weight: Tensor, result: LayerResult) -> Tensor:
    """Compute what is left to codes: the smoothed weight without the branch."""
    rest = weight.detach().float()
    if isinstance(result.branch, LowRank):
        rest = rest - result.branch.weight()
    return result.transform.to_weight(rest) if isinstance(result.transform, Smooth) else rest


@torch.no_grad()
def in_cells(weight: Tensor, start: EncodedWeight) -> Tensor:
    """Find values that round to the codes of `start`, on the way from those codes' values to `weight`.

    Beyond an outermost level there is no gradient: such a weight begins just below it.
    """
    values, codes = start.decode(), start.codes()

    def same(x: Tensor) -> Tensor:
        return start.quantizer.encode(x, start.layout, start.params)[0] == codes

    outermost = (values != 0) & same(8 * values) & (weight.abs() > values.abs())
    wanted = torch.where(outermost, BELOW * values, weight)
    found = values
    for share in SHARES:
        point = values + share * (wanted - values)
        found = torch.where(same(point), point, found)
    return found


def as_stored(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Round to the type of the file; the gradient goes straight through."""
    return x + (x.to(dtype).to(x.dtype) - x).detach()
