"""Which path each layer takes here, native or simulated, and why; and the switch to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from quant.errors import HardwareError, InputError
from quant.layers.install import quant_layers, state_of
from quant.layers.lowbit import paths
from quant.layers.native.fits import fit
from quant.layers.native.producers import unwire_, wire_, wired
from quant.layers.native.run import fit_layer, needs_of

WHERE = "a CUDA GPU of compute capability 8.0 (8.9 for fp8) and the package triton"


class Way(NamedTuple):
    """How a layer is computed.

    Attributes
    ----------
    native : bool
        On its codes, by a kernel; else by rounding in floating point.
    first : str
        What the layer does to its input in place of the module before it; empty: nothing.
    kept : str
        What a module before it goes on doing in torch, and why; empty: nothing that a kernel could do.
    op : str
        The kernel that fits the formats; "decode" where none does.
    why : str
        Why it is not native; empty if it is.
    """

    native: bool
    op: str
    why: str
    first: str = ""
    kept: str = ""

    @property
    def text(self) -> str:
        """For tables: ``native: int8``, ``native: int8, GELU first``, ``simulated: no kernel for ...``."""
        if not self.native:
            return f"simulated: {self.why}"
        more = f"; {self.kept}" if self.kept else ""
        return f"native: {self.op}" + (f", {self.first} first" if self.first else more)


def way(
    kind: str, weight: Any, activation: Any, device: torch.device, transform: Any = None, branch: Any = None
) -> Way:
    """Say how a layer of these formats runs on a device; arguments as of `quant.layers.native.fits.fit`."""
    found = fit(kind, weight, activation, transform, branch)
    if found.op == "decode":
        return Way(False, found.op, found.why)
    return _on(found.op, device)


def _on(op: str, device: torch.device) -> Way:
    why = paths.obstacle(device, needs_of(op))
    return Way(not why, op, f"{op} has a kernel, but {why}" if why else "")


def way_of_line(line: Any, device: torch.device | str) -> str:
    """Say how a line of a plan or a ledger runs on a device: ``native: int8``, ``simulated: WHY``, or float.

    A plan does not know yet what a method puts before or beside a layer, nor how it pads; a ledger does.
    """
    if line.weight is None:
        return "floating point"
    path = getattr(line, "path", "")
    if path.startswith("native: "):
        return path
    _, _, op = path.partition("from codes: ")
    if op.startswith("decode ("):
        return f"simulated: {op.removeprefix('decode (').removesuffix(')')}"
    return way(line.kind, line.weight, line.activation, torch.device(device)).text


def survey(model: nn.Module, device: torch.device | None = None) -> dict[str, Way]:
    """Say how each quantized layer of a model runs where it lies, or on another device."""
    found = {}
    for name, layer in quant_layers(model).items():
        op, why = fit_layer(layer)
        if op == "decode":
            found[name] = Way(False, op, why)
        else:
            found[name] = _on(op, device or layer.codes.device)
    return found


def refuse_device(device: torch.device | str) -> None:
    """Refuse a device without kernels, before any work.

    Raises
    ------
    HardwareError
        Says what is missing and what to do.
    """
    place = torch.device(device)
    there = place.type != "cuda" or torch.cuda.is_available()
    why = paths.obstacle(place) if there else "there is no CUDA device"
    if why:
        raise HardwareError(
            f"native arithmetic cannot run here: {why}; it takes {WHERE}; without native the same bits are "
            "simulated"
        )


def refuse_plan(plan: Any, device: torch.device | str) -> None:
    """Refuse a plan of which no layer has a kernel, before any work.

    Raises
    ------
    InputError
        Says why, and which recipes have kernels.
    """
    place = torch.device(device)
    lines = [line for line in plan.layers if line.weight is not None]
    _refuse({line.name: way(line.kind, line.weight, line.activation, place) for line in lines}, plan.recipe)


def _refuse(ways: Mapping[str, Way], recipe: str) -> None:
    if any(one.native for one in ways.values()):
        return
    why = Counter(one.why for one in ways.values()).most_common(1)
    raise InputError(
        f"{recipe} has no layer with a kernel here: {why[0][0] if why else 'it quantizes nothing'}; recipes "
        "that run natively: rtn-w8a8, svdquant-w8a8, svdquant-w4a4-native, fp4-fp8-e4m3, lrq-dit-w4a4"
    )


def native_(model: nn.Module) -> dict[str, Way]:
    """Switch a quantized model to its kernels, in place, for good.

    Layers that have a kernel run on their codes and keep no decoded weight; the others stay simulated, and
    the ledger says of each which it is and why.

    Returns
    -------
    dict of str to Way

    Raises
    ------
    HardwareError
        No kernel runs where the model lies.
    InputError
        The model is not quantized, or no layer has a kernel.
    """
    layers, state = quant_layers(model), state_of(model)
    if not layers:
        raise InputError("the model is not quantized: call quant.quantize_ first")
    refuse_device(next(iter(layers.values())).codes.device)
    ways = survey(model)
    ledger = None if state is None else state.ledger
    _refuse(ways, "the recipe" if ledger is None else ledger.recipe)
    for name, layer in layers.items():
        layer.backend = "kernels" if ways[name].native else "simulated"
        if ways[name].native:
            layer.forget_decoded()
    wiring = wire_(model)
    ways = {
        name: one._replace(first=wiring.words.get(name, ""), kept=wiring.kept.get(name, ""))
        for name, one in ways.items()
    }
    if ledger is not None:
        for line in ledger.layers:
            line.path = ways[line.name].text if line.name in ways else line.path
    return ways


@contextmanager
def natively(model: nn.Module) -> Iterator[dict[str, Way]]:
    """Run natively in a ``with``, as `native_`, and go back to what was before."""
    layers, state = quant_layers(model), state_of(model)
    before = {name: layer.backend for name, layer in layers.items()}
    moved = wired(model)
    lines = {} if state is None or state.ledger is None else {x.name: x.path for x in state.ledger.layers}
    try:
        yield native_(model)
    finally:
        unwire_(model)
        for name, layer in layers.items():
            layer.backend = before[name]
        if moved:
            wire_(model)
        for line in () if state is None or state.ledger is None else state.ledger.layers:
            line.path = lines[line.name]


def summary(ways: Mapping[str, Way]) -> str:
    """One line: how many layers are native by operation, and the reasons of the others."""
    native = Counter(one.op for one in ways.values() if one.native)
    rest = Counter(one.why for one in ways.values() if not one.native)
    words = [f"{op} {count}" for op, count in native.most_common()]
    first = Counter(one.first for one in ways.values() if one.first)
    words += [f"{count} with {what} first" for what, count in first.most_common()]
    more = [f"{count} because {why}" for why, count in rest.most_common()]
    line = f"native in {sum(native.values())} of {len(ways)} layers ({', '.join(words)})"
    return line + (f"; simulated: {'; '.join(more)}" if more else "")
