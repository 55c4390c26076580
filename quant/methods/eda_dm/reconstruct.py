"""Learn the rounding of one unit so that its output, and its layers' outputs, stay what they were."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from quant.denoisers.skips import halves
from quant.formats.granularity import input_layout
from quant.formats.grids import Params
from quant.methods.eda_dm.config import EdaDmConfig
from quant.methods.eda_dm.soft import SoftLayer
from quant.methods.eda_dm.units import Inputs, Unit, outputs_of, swapped
from quant.plans.plan import LayerPlan

WARM_UP, START, END = 0.2, 20.0, 2.0
"""The regulariser waits for a fifth of the steps; its power falls from 20 to 2."""


def distance(output: Tensor, target: Tensor, as_released: bool) -> Tensor:
    """Squared error, summed over channels and averaged over the rest.

    The released loss sums over axis 1 always, which in sequences are the tokens.
    """
    axis = 1 if as_released or output.ndim == 4 else -1
    wide = torch.promote_types(output.dtype, torch.float32)
    return (output.to(wide) - target.to(wide)).square().sum(axis).mean()


def unit_loss(
    output: Tensor, target: Tensor, layers: dict[str, Tensor], wanted: dict[str, Tensor], order: list[str],
    config: EdaDmConfig,
) -> Tensor:  # fmt: skip
    """Block loss plus `layer_weight` times the losses of all layers but the last of `order`."""
    total = distance(output, target, config.as_released)
    if config.reconstruction == "fine" and config.layer_weight:
        for name in order[:-1]:
            total = total + config.layer_weight * distance(layers[name], wanted[name], config.as_released)
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
    split: dict[str, int], config: EdaDmConfig, generator: torch.Generator,
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
    losses: list[float] = []
    if config.reconstruction != "none" and config.iterations:
        losses = _train(block, soft, order, full, inputs, config, generator)
    notes: dict[str, Any] = {"unit": unit.name}
    if losses:
        tenth = max(1, len(losses) // 10)
        notes["loss_first"] = round(sum(losses[:tenth]) / tenth, 8)
        notes["loss_last"] = round(sum(losses[-tenth:]) / tenth, 8)
    return {name: soft[relative[name]].result(notes) for name in unit.layers}


def _train(
    block: nn.Module, soft: dict[str, SoftLayer], order: list[str], full: Inputs, inputs: Inputs,
    config: EdaDmConfig, generator: torch.Generator,
) -> list[float]:  # fmt: skip
    exact = copy.deepcopy(block)
    single = "" in soft  # the unit is one layer: nothing to swap
    run: nn.Module = soft[""] if single else block
    weights = [s.alpha for s in soft.values()]
    scales = [s.log_scale for s in soft.values() if s.inputs] if config.rate_scale else []
    groups: list[dict[str, Any]] = [{"params": weights, "lr": config.rate_weight}]
    if scales:
        groups.append({"params": scales, "lr": config.rate_scale})
    adam = torch.optim.Adam(groups)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, config.iterations)
    losses: list[Tensor] = []
    size = min(config.batch_size, inputs.count)
    with (
        swapped(block, {} if single else dict(soft)),
        outputs_of(dict(soft)) as seen,
        outputs_of({name: exact.get_submodule(name) for name in soft}) as wanted,
    ):
        power = 0.0
        for step in range(config.iterations):
            index = torch.randperm(inputs.count, generator=generator, device=generator.device)[:size]
            clean, noisy = full.rows(index), inputs.rows(index)
            with torch.no_grad():
                target = full.call(exact, clean)
            output = inputs.call(run, mixed(noisy, clean, config.drop, generator))
            loss = unit_loss(output, target, seen, wanted, order, config)
            # one constant a unit: Adam does not see it, and the regulariser's weight becomes comparable
            power = power or max(float(distance(target, torch.zeros_like(target), config.as_released)), 1e-20)
            total = loss / power
            if config.regulariser and step >= WARM_UP * config.iterations:
                rest = (step / config.iterations - WARM_UP) / (1 - WARM_UP)
                pull = [s.pull(START + (END - START) * rest) for s in soft.values()]
                total = total + config.regulariser * torch.stack(pull).sum()
            parameters = [*weights, *scales]
            # not backward(): the model's own parameters must not collect gradients
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            adam.step()
            cosine.step()
            losses.append(loss.detach() / power)
    return torch.stack(losses).tolist()  # read once: a GPU would wait at every step


def mixed(noisy: list[Any], clean: list[Any], drop: float, generator: torch.Generator) -> list[Any]:
    """Replace a share of each quantized input's values by full-precision ones (not in vectors as time)."""
    out = []
    for a, b in zip(noisy, clean, strict=True):
        if drop and isinstance(a, Tensor) and a.is_floating_point() and a.ndim > 2:
            keep = torch.rand(a.shape, generator=generator, device=generator.device).to(a.device) < drop
            a = torch.where(keep, b, a)
        out.append(a)
    return out
