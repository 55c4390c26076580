"""Learn the rounding of one unit so that its output, and its layers' outputs, stay what they were."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from quant.denoisers.skips import halves
from quant.formats.granularity import input_layout
from quant.formats.grids import Params
from quant.methods.eda_dm.config import EdaDmConfig
from quant.methods.eda_dm.soft import SoftLayer
from quant.methods.eda_dm.teacher import Teacher
from quant.plans.plan import LayerPlan
from quant.registry import Context
from quant.training.blocks import Inputs, Unit, outputs_of, swapped
from quant.training.fake import frozen
from quant.training.loop import Result, Task, distill, factor_for
from quant.training.optimize import Group, Rules
from quant.training.rounding import undecided


def distance(output: Tensor, target: Tensor, as_released: bool, linear: bool = False) -> Tensor:
    """Squared error, summed over channels and averaged over the rest.

    Channels are axis 1 of maps, and the last one of sequences and of all that a linear gives. The released
    loss sums over axis 1 always, which in sequences are the tokens.
    """
    axis = 1 if as_released or (output.ndim == 4 and not linear) else -1
    wide = torch.promote_types(output.dtype, torch.float32)
    return (output.to(wide) - target.to(wide)).square().sum(axis).mean()


def unit_loss(
    output: Tensor, target: Tensor, layers: dict[str, Tensor], wanted: dict[str, Tensor], order: list[str],
    config: EdaDmConfig, linears: Collection[str] = (),
) -> Tensor:  # fmt: skip
    """Block loss plus `layer_weight` times the losses of all layers but the last of `order`."""
    total = distance(output, target, config.as_released, "" in linears)
    if config.reconstruction == "fine" and config.layer_weight:
        for name in order[:-1]:
            error = distance(layers[name], wanted[name], config.as_released, name in linears)
            total = total + config.layer_weight * error
    return total


@torch.no_grad()
def input_params(
    block: nn.Module, lines: dict[str, LayerPlan], inputs: Inputs, split: dict[str, int]
) -> dict[str, Params]:
    """Find the starting scale and zero point of each layer's input, from the unit's quantized inputs.

    Parameters
    ----------
    block : torch.nn.Module
        Full precision.
    lines : dict
        Plan by name relative to the block ("" for the block itself).
    inputs : Inputs
    split : dict
        Channels of the first half by relative name.
    """
    streams: dict[str, Any] = {}
    handles = []
    for name, line in lines.items():
        if line.activation is None:
            continue
        streams[name] = line.activation.stream()

        def look(
            module: nn.Module, args: tuple[Tensor, ...], name: str = name, line: LayerPlan = line
        ) -> None:
            quantizer = line.activation
            if quantizer is not None:
                quantizer.observe(streams[name], args[0], input_layout(line.kind))

        handles.append(block.get_submodule(name).register_forward_pre_hook(look))
    try:
        for index in torch.arange(inputs.count).split(16):
            inputs.call(block, inputs.rows(index))
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, Params] = {}
    for name, stream in streams.items():
        quantizer = lines[name].activation
        if quantizer is None:
            continue
        low, high = stream.range(quantizer.grid)
        if quantizer.granularity.kind == "input_channel":
            low, high = halves(low, high, split.get(name))
        found[name] = quantizer.grid.fit_range(low, high, False, torch.float32)
    return found


def reconstruct(
    model: nn.Module, unit: Unit, lines: dict[str, LayerPlan], full: Inputs, inputs: Inputs,
    split: dict[str, int], config: EdaDmConfig, generator: torch.Generator, context: Context,
) -> dict[str, Any]:  # fmt: skip
    """Train one unit.

    Parameters
    ----------
    model : torch.nn.Module
        Full precision; as it was afterwards.
    unit : Unit
    lines : dict
        Plan by layer name.
    full, inputs : Inputs
        Of the unit in the full-precision model, and behind the quantized prefix.
    split : dict
        Channels of the first half of skip concatenations, by layer name.
    config : EdaDmConfig
    generator : torch.Generator
    context : Context

    Returns
    -------
    dict of str to LayerResult
    """
    block = model.get_submodule(unit.name)
    relative = {name: name[len(unit.name) :].lstrip(".") for name in unit.layers}
    local = {relative[name]: lines[name] for name in unit.layers}
    start = input_params(block, local, inputs, {relative[n]: s for n, s in split.items() if n in relative})
    soft = {
        name: SoftLayer(block.get_submodule(name), line, start.get(name, {}), config.drop, generator)
        for name, line in local.items()
    }
    order = list(soft)
    if config.as_released:
        registered = [name for name, _ in block.named_modules() if name in soft]
        order.sort(key=registered.index)
    notes: dict[str, Any] = {"unit": unit.name}
    if config.reconstruction != "none" and config.iterations:
        found = _train(unit.name, block, soft, order, full, inputs, config, generator, context).notes()
        notes |= {"loss_first": found["loss_first"], "loss_last": found["loss_last"]}
    return {name: soft[relative[name]].result(notes) for name in unit.layers}


def _train(
    key: str, block: nn.Module, soft: dict[str, SoftLayer], order: list[str], full: Inputs, inputs: Inputs,
    config: EdaDmConfig, generator: torch.Generator, context: Context,
) -> Result:  # fmt: skip
    single = "" in soft  # the unit is one layer: nothing to swap
    run: nn.Module = soft[""] if single else block
    groups = [Group({f"{n}.alpha": s.alpha for n, s in soft.items()}, config.rate_weight)]
    if config.rate_scale:
        scales = {f"{n}.log_scale": s.log_scale for n, s in soft.items() if s.inputs}
        groups.append(Group(scales, config.rate_scale))
    size = min(config.batch_size, inputs.count)
    teacher = Teacher(block, list(soft), full, size)
    linears = {name for name, layer in soft.items() if layer.line.kind == "Linear"}
    power = 0.0

    def draw(step: int) -> Tensor:
        return torch.randperm(inputs.count, generator=generator, device=generator.device)[:size]

    def loss(index: Tensor, step: int) -> tuple[Tensor, Tensor | float]:
        nonlocal power
        target, wanted = teacher(index)
        output = inputs.call(run, mixed(inputs.rows(index), full.rows(index), config.drop, generator))
        found = unit_loss(output, target, seen, wanted, order, config, linears)
        # one constant a unit: Adam does not see it, and the regulariser's weight becomes comparable
        nothing = torch.zeros_like(target)
        power = power or max(float(distance(target, nothing, config.as_released, "" in linears)), 1e-20)
        if not config.regulariser:
            return found / power, 0.0
        pull = [torch.as_tensor(undecided(s.soft(), step / config.iterations)) for s in soft.values()]
        return found / power, config.regulariser * torch.stack(pull).sum()

    with (
        frozen(block),
        swapped(block, {} if single else dict(soft)),
        outputs_of(dict(soft)) as seen,
    ):
        task = Task(
            key, groups, draw, loss, config.iterations, Rules(schedule="cosine"), generator,
            every=config.iterations, factor=factor_for(block),
        )  # fmt: skip
        # units are counted, not their steps, and kept whole once they are done
        return distill(task, replace(context, progress=Context().progress, state=None))


def mixed(noisy: list[Any], clean: list[Any], drop: float, generator: torch.Generator) -> list[Any]:
    """Replace a share of each quantized input's values by full-precision ones (not in vectors as time)."""
    out = []
    for a, b in zip(noisy, clean, strict=True):
        if drop and isinstance(a, Tensor) and a.is_floating_point() and a.ndim > 2:
            keep = torch.rand(a.shape, generator=generator, device=generator.device).to(a.device) < drop
            a = torch.where(keep, b, a)
        out.append(a)
    return out
