"""What if this layer's input were rounded: bits, format, who shares a scale, and where the range is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, setting
from lab.jobs.models import look

if TYPE_CHECKING:
    from quant.formats.grids import Grid
    from quant.observation import Observation
    from quant.observation.whatif import WhatIf

Format = Literal["int", "int-asymmetric", "float", "log"]
MANTISSA = {3: 0, 4: 1, 5: 2, 6: 2, 7: 3, 8: 3}
"""Mantissa bits of the small float of each size: E2M0, E2M1, E2M2, E3M2, E3M3, E4M3."""

_NEAREST = 3


class Settings(look.Settings):
    """Say what rounding one layer's input would do (simulated), from a short look at the model."""

    layer: str = setting("", "layer name; empty: the one with the largest magnitude")
    format: Format = setting("int", "which numbers exist")
    bits: int = setting(4, "size of a code", unit="bits", ge=3, le=8)
    shared: Literal["tensor", "channel"] = setting("tensor", "who shares a scale")
    clip: float = setting(1.0, "share of the seen range that the grid covers", ge=0.05, le=1)


class Result(contract.Result):
    """Errors of rounding, over everything seen."""

    layer: str
    grid: str
    arithmetic: str = "simulated"
    mse: float
    sqnr_db: float
    clipped: float
    zeroed: float
    levels: int


def grid_of(format: str, bits: int) -> Grid:
    """Return the grid of a format and a number of bits."""
    from quant.formats.floats import FloatGrid
    from quant.formats.grids import IntGrid
    from quant.formats.logs import LogGrid

    if format == "float":
        mantissa = MANTISSA[bits]
        return FloatGrid(exponent=bits - 1 - mantissa, mantissa=mantissa)
    if format == "log":
        return LogGrid(bits=bits)
    return IntGrid(bits=bits, mode="asymmetric" if format == "int-asymmetric" else "symmetric")


def asked(settings: Settings) -> look.Settings:
    """Return the look that a measurement reads."""
    return look.Settings(**settings.model_dump(include=set(look.Settings.model_fields)))


def layer_of(seen: Observation, layer: str) -> str:
    """Return a layer's name; the one with the largest magnitude if it is empty.

    Raises
    ------
    InputError
        There is no such layer; names the nearest ones.
    """
    if not layer:
        return max(seen.inputs.values(), key=lambda stats: float(stats.absmax.max())).layer
    if layer not in seen.inputs:
        import difflib

        holding = [name for name in seen.inputs if layer in name]
        near = holding[:_NEAREST] or difflib.get_close_matches(layer, list(seen.inputs), _NEAREST, 0.0)
        raise InputError(f"layer {layer!r} is not in this model; nearest names: {', '.join(near)}")
    return layer


def measure(seen: Observation, settings: Settings) -> tuple[str, WhatIf]:
    """Say what rounding would do to a layer that was looked at; a few milliseconds."""
    from quant.observation.whatif import what_if

    layer = layer_of(seen, settings.layer)
    grid = grid_of(settings.format, settings.bits)
    return layer, what_if(seen.inputs[layer], grid, settings.shared, settings.clip)


def names(settings: Settings) -> None:
    """Refuse an unknown model; needs no torch."""
    from lab.models.opening import model_files

    model_files(settings.model)


def run(settings: Settings, context: Context) -> Result:
    """Look at the model if nobody has yet, and measure."""
    seen = look.run(asked(settings), context)
    layer, found = measure(seen, settings)
    return Result(
        layer=layer, grid=grid_of(settings.format, settings.bits).label, mse=found.mse, sqnr_db=found.sqnr_db,
        clipped=found.clipped, zeroed=found.zeroed, levels=len(found.levels),
    )  # fmt: skip


def check(settings: Settings) -> None:
    """Refuse an unknown model, and a recording of another."""
    from lab.models.preflight import check_recording

    check_recording(settings.model, settings.recording)
