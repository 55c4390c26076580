"""SVDQuant over a model: calibration rows, stacks of layers that share an input, one result a layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from quant.denoisers.inventory import LayerInfo, find_layers
from quant.denoisers.offload import to_device
from quant.formats.granularity import weight_layout
from quant.layers.attachments import LowRank, Smooth
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.quantized import weight_sqnr_db
from quant.methods.plumbing import configs
from quant.methods.svdquant.config import SvdQuantConfig
from quant.methods.svdquant.formats import formats, kind_of, rank_of, shifted
from quant.methods.svdquant.solve import SHIFT, Candidate, Problem, shift_bias, solve
from quant.plans.plan import LayerPlan, Plan
from quant.recordings.rows import LayerRows, layer_rows, spread_batches
from quant.registry import Context, Outcome
from quant.training.running.finished import keep, kept

__all__ = ["core", "formats"]

Member = tuple[LayerPlan, LayerRows]

_ROWS_ON_CPU, _ROWS_ON_GPU = 1 << 30, 8 << 30
"""Bytes of calibration rows held at a time; the model runs once for each such chunk of layers."""


@torch.no_grad()
def core(model: nn.Module, plan: Plan, config: SvdQuantConfig, context: Context) -> Outcome:
    """Solve every planned layer; the model is only read. What is solved is kept in the context's state."""
    modules = dict(model.named_modules())
    infos = {layer.name: layer for layer in find_layers(model)}
    lines = {line.name: line for line in plan.quantized}
    settings = configs(plan, config)
    branched = [name for name in lines if kind_of(infos[name]) == "branch"]
    results: dict[str, LayerResult] = {}

    def done(names: list[str]) -> None:
        context.progress(len(results), len(lines), names[0])

    for name, line in lines.items():
        if name not in branched and line.weight is not None:
            done([name])
            weight = _weight_of(modules[name])
            results[name] = to_device(grouped(weight.to(context.device), line), weight.device)
    if not branched:
        return Outcome(results)
    batches = spread_batches(context.recording, config.samples, config.steps)

    def wanted(name: str, width: int) -> int:
        # a Hessian of fewer rows than columns says nothing about most directions
        return max(config.rows, 2 * width) if settings[name].residual == "gptq" else config.rows

    budget = _ROWS_ON_GPU if context.device.startswith("cuda") else _ROWS_ON_CPU
    stream = layer_rows(model, branched, batches, wanted, seed=context.seed, budget=budget)
    for stack in _stacks(stream, lines, settings, config.share):
        names = [line.name for line, _ in stack]
        done(names)
        found = kept(context.state, [line for line, _ in stack])
        if found is None:
            found = solve_stack(stack, modules, infos[names[0]], settings[names[0]])
            keep(context.state, found)
        results.update({name: to_device(found[name], _weight_of(modules[name]).device) for name in names})
    context.progress(len(results), len(lines), "done")
    return Outcome({name: results[name] for name in lines})


def _weight_of(module: nn.Module) -> Tensor:
    return module.get_parameter("weight").detach()


def grouped(weight: Tensor, line: LayerPlan) -> LayerResult:
    """Plain groups for convolutions, 8-bit channels for modulation."""
    assert line.weight is not None  # planned layers have a format
    encoded = EncodedWeight.from_weight(weight, line.weight, weight_layout(line.kind))
    return LayerResult(encoded, line.activation)


def _stacks(
    stream: Iterator[tuple[str, LayerRows]],
    lines: dict[str, LayerPlan],
    settings: dict[str, SvdQuantConfig],
    share: bool,
) -> Iterator[list[Member]]:
    """Neighbouring layers of one parent that saw the same rows and have the same formats."""
    stack: list[Member] = []
    for name, seen in stream:
        line = lines[name]
        if stack and not (share and _same(stack[-1], (line, seen), settings)):
            yield stack
            stack = []
        stack.append((line, seen))
    if stack:
        yield stack


def _same(one: Member, other: Member, settings: dict[str, SvdQuantConfig]) -> bool:
    a, b = one[0], other[0]
    return (
        a.name.rpartition(".")[0] == b.name.rpartition(".")[0]
        and (a.weight, a.activation) == (b.weight, b.activation)
        and settings[a.name] == settings[b.name]
        and _rank(a, settings) == _rank(b, settings)
        and torch.equal(one[1].rows, other[1].rows)
    )


def _rank(line: LayerPlan, settings: dict[str, SvdQuantConfig]) -> int:
    return rank_of(settings[line.name], line.shape[0], line.shape[1])


@torch.no_grad()
def solve_stack(
    stack: list[Member], modules: dict[str, nn.Module], info: LayerInfo, config: SvdQuantConfig
) -> dict[str, LayerResult]:
    """One problem for the stacked weight, cut apart again by rows.

    It is solved where the rows are; weights come from and results go to where each layer is.
    """
    line, seen = stack[0]
    assert line.weight is not None  # planned layers have a format
    shift = SHIFT if shifted(info, config) else 0.0
    low = seen.low + shift
    # moved in the model's own type, widened there: half the bytes
    weight = torch.cat([_weight_of(modules[x.name]).to(seen.rows.device).float() for x, _ in stack])
    problem = Problem(
        weight=weight, rows=seen.rows, absmax=torch.maximum(low.abs(), (seen.high + shift).abs()),
        rank=rank_of(config, line.shape[0], line.shape[1]), quantizer=line.weight,
        activation=line.activation, config=config, shift=shift,
    )  # fmt: skip
    found = solve(problem)
    results, start = {}, 0
    for member, _ in stack:
        stop = start + member.shape[0]
        module = modules[member.name]
        result = _cut(found, start, stop, member, module, problem)
        result.sqnr_db = weight_sqnr_db(weight[start:stop], result)
        results[member.name] = to_device(result, _weight_of(module).device)
        start = stop
    return results


def _cut(
    found: Candidate, start: int, stop: int, line: LayerPlan, module: nn.Module, problem: Problem
) -> LayerResult:
    quantizer = problem.quantizer
    params = {key: _rows(value, start, stop, len(found.codes)) for key, value in found.params.items()}
    encoded = EncodedWeight.from_codes(found.codes[start:stop], quantizer, "linear_weight", params)
    transform = None if found.factor is None else Smooth(found.factor.clone(), shift=problem.shift)
    branch = None
    if found.down is not None and found.up is not None:
        branch = LowRank(found.down.clone(), found.up[start:stop].clone())
    bias: Any = getattr(module, "bias", None)
    if problem.shift and bias is not None:
        correction = shift_bias(encoded.decode(), found.factor, problem.shift)
        bias = (bias.detach().to(correction) - correction).to(bias.dtype)
    else:
        bias = None
    return LayerResult(
        encoded, line.activation, transform=transform, branch=branch, bias=bias, notes=dict(found.notes)
    )


def _rows(value: Tensor, start: int, stop: int, count: int) -> Tensor:
    """Rows of a parameter; what belongs to the whole tensor is copied."""
    return value[start:stop].clone() if value.shape[0] == count else value.clone()
