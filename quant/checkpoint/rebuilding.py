"""One quantized layer from its tensors and its lines in the header, every one of them checked."""

from __future__ import annotations

from torch import Tensor

from quant.checkpoint import specs
from quant.checkpoint.header import LayerParts
from quant.checkpoint.writing import dtype_of
from quant.denoisers.inventory import LayerInfo
from quant.errors import InputError
from quant.formats import clusters
from quant.formats.granularity import Layout, input_layout, weight_layout
from quant.formats.quantizer import Quantizer
from quant.layers.attachments import build
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.plans.ledger import LayerRecord

LARGEST_GROUP = 4096
"""Groups may be wider than a layer, which is then filled up; a limit keeps that in bounds."""

_CLUSTERED = {"axis", "labels", "scale", "zero_point"}
"""Tables of `quant.formats.clusters`."""


def rebuild(
    record: LayerRecord, layer: LayerInfo, parts: LayerParts, tensors: dict[str, Tensor], used: set[str]
) -> LayerResult:
    """Rebuild one layer's result, marking its tensors as used.

    Parameters
    ----------
    record : LayerRecord
        With a weight format; kind and shape are those of `layer`.
    layer : LayerInfo
        Of the bare model.
    parts : LayerParts
    tensors : dict of str to tensor
        All of the file.
    used : set of str
        Gets the names that were taken.

    Raises
    ------
    InputError
        Something is missing or does not fit together; says what, without file and layer.
    """

    def take(key: str) -> Tensor:
        name = f"{record.name}.{key}"
        if name not in tensors:
            raise InputError(f"tensor {name!r} is missing")
        used.add(name)
        return tensors[name]

    dtype_of(parts.dtype)
    sides = {}
    for role, spec in (("transform", parts.transform), ("branch", parts.branch)):
        found = {name: take(f"{role}.{name}") for name in specs.tensor_names(spec, role, layer)}
        specs.check_tensors(spec, role, found)
        sides[role] = build(spec, found)
    quantizer = "input_quantizer"
    inputs = {name: take(f"{quantizer}.{name}") for name in parts.activation_params}
    timesteps = take(f"{quantizer}.timesteps") if parts.timesteps else None
    _check_activation(record.activation, input_layout(record.kind), layer, inputs, timesteps)
    bias = take("bias") if f"{record.name}.bias" in tensors else None
    if bias is not None and (tuple(bias.shape) != layer.shape[:1] or not bias.is_floating_point()):
        raise InputError(f"its bias is {bias.dtype} {tuple(bias.shape)}, expected floats {layer.shape[:1]}")
    packed, params = take("codes"), {name: take(f"weight_{name}") for name in parts.weight_params}
    return LayerResult(
        weight=_weight(record, packed, params),
        activation=record.activation,
        activation_params=inputs,
        timesteps=timesteps,
        transform=sides["transform"],
        branch=sides["branch"],
        bias=bias,
    )


def check_format(quantizer: Quantizer, layout: Layout, where: str) -> None:
    """Insist on scales that mean something for a layout, in groups of a size that can be."""
    shared = quantizer.granularity
    if not shared.allows(layout):
        raise InputError(f"{where} cannot have scales by {shared.label}")
    if shared.group_size is not None and shared.group_size > LARGEST_GROUP:
        raise InputError(f"{where} has groups of {shared.group_size}, at most {LARGEST_GROUP} are read")


def _weight(record: LayerRecord, packed: Tensor, params: dict[str, Tensor]) -> EncodedWeight:
    quantizer, layout, shape = record.weight, weight_layout(record.kind), record.shape
    if quantizer is None:
        raise InputError("it has no weight format")
    check_format(quantizer, layout, "its weight")
    encoded = EncodedWeight(quantizer, layout, shape, packed, params)
    fault = encoded.fault()
    if fault:
        raise InputError(fault)
    return encoded


def _check_activation(
    quantizer: Quantizer | None, layout: Layout, layer: LayerInfo, params: dict[str, Tensor],
    timesteps: Tensor | None,
) -> None:  # fmt: skip
    """Insist on stored input ranges that belong to the format: names, rows, possible values."""
    if quantizer is None:
        if params or timesteps is not None:
            raise InputError("it has stored input ranges but no input format")
        return
    check_format(quantizer, layout, "its input")
    kind = quantizer.schedule.kind
    if (timesteps is not None) != (kind == "timestep"):
        raise InputError(f"its input ranges are {kind}, which {_says(timesteps)} a table of timesteps")
    if kind == "dynamic" and params:
        raise InputError("its input ranges are dynamic, but some are stored")
    channels = layer.shape[1] * layer.groups
    try:
        blank = quantizer.blank_params(
            (1, 1, channels) if layer.kind == "Linear" else (1, channels, 1, 1), layout
        )
    except (ArithmeticError, ValueError, RuntimeError, TypeError):
        raise InputError(f"its input format {quantizer.label} cannot be computed") from None
    clustered = quantizer.granularity.kind == "cluster"
    names = _CLUSTERED if clustered else set(blank)
    if (params or kind != "dynamic") and set(params) != names:
        raise InputError(f"its input ranges are {sorted(params)}, its format has {sorted(names)}")
    rows = 1
    if timesteps is not None:
        rows = len(timesteps) if timesteps.ndim == 1 else 0
        if not rows or not timesteps.is_floating_point():
            raise InputError(f"its timesteps are {timesteps.dtype} {tuple(timesteps.shape)}, not numbers")
        short = [name for name, tensor in params.items() if tensor.ndim < 1 or len(tensor) != rows]
        if short:
            raise InputError(f"its input {short[0]!r} has not one row for each of {rows} timesteps")
    if quantizer.granularity.kind in ("tensor", "input_channel"):
        wrong = [name for name, tensor in params.items() if tensor.numel() != rows * blank[name].numel()]
        if wrong:
            raise InputError(
                f"its input {wrong[0]!r} has {params[wrong[0]].numel()} values, "
                f"expected {rows * blank[wrong[0]].numel()}"
            )
    fault = None
    if params:
        fault = clusters.fault(params, channels) if clustered else quantizer.grid.fault(params)
    if fault:
        raise InputError(f"its input has {fault}")


def _says(timesteps: Tensor | None) -> str:
    return "needs" if timesteps is None else "has no use for"
