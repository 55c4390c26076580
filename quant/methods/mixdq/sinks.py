"""Find sink tokens by measurement: which position is huge, and is it the same for every condition."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from quant.layers.sinks import SinkDrop, SinkRow, reach
from quant.recordings.rows import run_batch
from quant.recordings.trajectories import Trajectories

CONDITION = ("*attn2.to_k", "*attn2.to_v")
LOOKED_AT = 64
"""Conditions that are enough to tell a sink."""


@dataclass(frozen=True)
class Sink:
    """A token that stands out at one layer.

    Attributes
    ----------
    position : int
    ratio : float
        Its largest feature over the median of the other tokens' largest.
    constant : bool
        The same for every condition seen; only then a stored row can stand for it.
    token : tensor of shape (in,)
    row : tensor of shape (out,)
        The layer's output for it.
    """

    position: int
    ratio: float
    constant: bool
    token: Tensor
    row: Tensor

    def notes(self) -> dict[str, Any]:
        """JSON types, for the ledger."""
        what = "stored row" if self.constant else "moves with the condition: stays in the input range"
        return {"sink": what, "position": self.position, "ratio": round(self.ratio, 3)}


def is_condition(name: str) -> bool:
    """Whether a layer's input is the condition: keys and values of cross-attention."""
    return any(fnmatchcase(name, pattern) for pattern in CONDITION)


@torch.no_grad()
def find_sinks(
    model: nn.Module, trajectories: Trajectories, ratios: Mapping[str, float], batch_size: int
) -> dict[str, Sink]:
    """Look at the inputs of some layers for different conditions at one timestep.

    Parameters
    ----------
    model : torch.nn.Module
    trajectories : Trajectories
    ratios : mapping of str to float
        By name of linears whose input is (n, tokens, in): how far a sink stands out (`sink_ratio`).
    batch_size : int
        Conditions of a batch.

    Returns
    -------
    dict
        By layer name; layers without a sink are left out.
    """
    if not ratios:
        return {}
    inputs: dict[str, list[Tensor]] = {name: [] for name in ratios}
    outputs: dict[str, list[Tensor]] = {name: [] for name in ratios}
    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(_keep(inputs[name], outputs[name])) for name in ratios]
    try:
        first = trajectories.timesteps[:1]
        batches = trajectories.batches("calibrate", timesteps=first, batch_size=batch_size)
        for index, batch in enumerate(batches):
            if index * batch_size >= LOOKED_AT:
                break
            run_batch(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, ratio in ratios.items():
        sink = _judge(inputs[name], outputs[name], ratio)
        if sink is not None:
            found[name] = sink
    return found


def _keep(inputs: list[Tensor], outputs: list[Tensor]) -> Callable:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        inputs.append(args[0].detach())
        outputs.append(output.detach())

    return hook


def _judge(inputs: list[Tensor], outputs: list[Tensor], ratio: float) -> Sink | None:
    if not inputs or inputs[0].ndim != 3 or inputs[0].shape[1] < 2:
        return None
    x, y = torch.cat(inputs), torch.cat(outputs)
    height = x.abs().amax(-1).float()  # (samples, tokens)
    largest = height.median(0).values
    position = int(largest.argmax())
    others = torch.cat([largest[:position], largest[position + 1 :]])
    found = float(largest[position] / others.median().clamp(min=1e-12))
    if found < ratio:
        return None
    token = x[:, position]
    same = bool(((token - token[0]).abs() <= reach(token[0])).all())
    # one condition alone is constant by definition and proves nothing
    constant = len(x) > 1 and same
    return Sink(position, found, constant, token[0].clone(), y[0, position].clone())


def slot(layer: nn.Linear, sink: Sink | None) -> tuple[SinkDrop, SinkRow]:
    """Transform and branch of a layer; an empty slot of the same size if there is no constant sink."""
    weight = layer.weight.detach()
    if sink is None or not sink.constant:
        token, row, position = weight.new_zeros(weight.shape[1]), weight.new_zeros(weight.shape[0]), -1
        bias = torch.zeros_like(row)
    else:
        token, row, position = sink.token, sink.row, sink.position
        bias = torch.zeros_like(row) if layer.bias is None else layer.bias.detach().clone()
    where = torch.tensor([position], device=weight.device)
    return SinkDrop(token.clone(), where.clone()), SinkRow(token.clone(), where, row, bias)


def slot_bytes(shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes that `slot` takes, in the weight's own type: the token and its position twice, row and bias."""
    return 2 * (itemsize * shape[1] + 8) + 2 * itemsize * shape[0]
