"""Formats by layer: which layers get a branch, which are only grouped, which stay."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal

from quant.denoisers.inventory import LayerInfo
from quant.denoisers.roles import REASONS, role_of
from quant.formats.codebooks import CodebookGrid
from quant.formats.floats import FloatGrid
from quant.formats.granularity import Granularity
from quant.formats.grids import IntGrid
from quant.formats.quantizer import Quantizer, int_quantizer
from quant.methods.plumbing import STATIC, free_input, weight_only
from quant.methods.svdquant.config import SvdQuantConfig
from quant.observers.ranges import MseSearch
from quant.registry import LayerFormat

# diffusers names, beyond the roles that every method knows
PARTS: tuple[tuple[str, str], ...] = (
    ("*attn2.to_k", "cross_kv"), ("*attn2.to_v", "cross_kv"), ("*attn2.add_?_proj", "cross_kv"),
    ("*attentions.*.proj_in", "projections"), ("*attentions.*.proj_out", "projections"),
    ("*conv_shortcut", "shortcuts"), ("*downsamplers.*", "samplers"), ("*upsamplers.*", "samplers"),
)  # fmt: skip

KEPT = {
    "cross_kv": "keys and values of the condition: a few tokens, under 5 % of the time",
    "projections": "projection into or out of a transformer: 16 bit in the paper's policy",
    "shortcuts": "residual shortcut: 16 bit in the paper's policy",
    "samplers": "up or down sampling: 16 bit in the paper's policy",
}

FOUR = CodebookGrid(values=(-1.5104, -0.4528, 0.4528, 1.5104))
"""Levels of least error for a normal distribution (Max 1960); symmetric 2-bit integers are three."""
SEARCH = MseSearch(candidates=12, smallest=0.35)
"""Of the scales of four levels; every attempt at a smoothing searches anew."""
_WEIGHT_SEARCH = 16
"""Coarse scales tried for each row of a weight."""


def part_of(name: str) -> str:
    """Role of a layer, with SVDQuant's own parts."""
    return next((part for pattern, part in PARTS if fnmatchcase(name, pattern)), role_of(name))


def kind_of(layer: LayerInfo) -> Literal["branch", "grouped", "weight only"]:
    """How a quantized layer is treated: with smoothing and branch, in plain groups, 8-bit weights."""
    if role_of(layer.name) == "modulation":
        return "weight only"
    return "branch" if layer.kind == "Linear" else "grouped"


def formats(layer: LayerInfo, config: SvdQuantConfig) -> LayerFormat | str:
    """Format of one layer, or the reason why it stays as it is."""
    part = part_of(layer.name)
    if part in config.keep:
        return KEPT.get(part) or REASONS[part]
    kind = kind_of(layer)
    if kind == "weight only":
        return weight_only("modulation")
    if kind == "grouped" and config.convolutions == "float":
        return "convolution: 16 bit, as the published engine runs it"
    rows, columns = layer.shape[0], layer.shape[1]
    weight = weight_quantizer(config, columns)
    activation = activation_quantizer(config, layer)
    note = None
    if weight.granularity.kind == "group" and columns % config.group_size:
        note = f"last group has {columns % config.group_size} of {config.group_size} channels"
    if kind == "grouped":
        return LayerFormat(weight, activation, reason="convolution: plain groups, no branch")
    rank = rank_of(config, rows, columns)
    if rank < config.rank:
        capped = f"rank {rank} of {config.rank}: at most a quarter of the layer's"
        note = f"{note}; {capped}" if note else capped
    transformed = config.smooth == "search" or shifted(layer, config)
    side = 2 * rank * (rows + columns) + (2 * columns if transformed else 0)
    return LayerFormat(weight, activation, side_bytes=side, reason=note)


def rank_of(config: SvdQuantConfig, rows: int, columns: int) -> int:
    """Rank of the branch: a branch of more than a quarter of the layer would be the layer."""
    return min(config.rank, max(1, min(rows, columns) // 4)) if config.rank else 0


def shifted(layer: LayerInfo, config: SvdQuantConfig) -> bool:
    """Whether the input is moved above zero and coded unsigned."""
    return config.shift and config.numbers == "int4" and config.activation_bits == 4 and layer.after_gelu


def weight_quantizer(config: SvdQuantConfig, columns: int) -> Quantizer:
    """Format of a weight; rows shorter than a group have one plain scale."""
    if config.numbers == "int8":
        return int_quantizer(8, "channel", schedule=STATIC)
    if config.numbers == "nvfp4":
        return Quantizer(
            grid=FloatGrid(exponent=2, mantissa=1), granularity=_group(config), schedule=STATIC, fine="e4m3"
        )
    if config.residual_bits == 2:
        shared = Granularity(kind="channel") if columns < config.group_size else _group(config)
        return Quantizer(
            grid=FOUR, granularity=shared, schedule=STATIC, observer=SEARCH, scale_dtype="bfloat16"
        )
    if columns < config.group_size:
        return int_quantizer(config.residual_bits, "channel", schedule=STATIC)
    fine: Any = None if config.scales == "real" else config.scales
    return Quantizer(
        grid=IntGrid(bits=config.residual_bits), granularity=_group(config), schedule=STATIC, fine=fine,
        search=_WEIGHT_SEARCH if fine else 0, scale_dtype="float32" if fine else "bfloat16",
    )  # fmt: skip


def activation_quantizer(config: SvdQuantConfig, layer: LayerInfo) -> Quantizer | None:
    """Format of an input: dynamic, by token and group (by pixel and group for convolutions)."""
    if config.activation_bits is None:
        return None
    if config.numbers == "int8" or config.activation_bits == 8:
        return free_input(layer, 8)
    if config.numbers == "nvfp4":
        grid = FloatGrid(exponent=2, mantissa=1)
        return Quantizer(grid=grid, granularity=_group(config), scale_dtype="float8_e4m3fn")
    fine: Any = None if config.scales == "real" else config.scales
    mode: Any = "unsigned" if shifted(layer, config) else "symmetric"
    return Quantizer(
        grid=IntGrid(bits=4, mode=mode), granularity=_group(config), fine=fine,
        search=config.input_search if fine else 0, scale_dtype="float32" if fine else "bfloat16",
    )  # fmt: skip


def _group(config: SvdQuantConfig) -> Granularity:
    return Granularity(kind="group", group_size=config.group_size)
