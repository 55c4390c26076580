"""DGQ: grouped inputs along the axis that needs it, a table for each timestep."""

from __future__ import annotations

from types import ModuleType

from quant.methods.dgq.config import DgqConfig
from quant.registry import MethodInfo, method

INFO = MethodInfo(
    title="DGQ (distribution-aware group quantization of inputs)",
    paper="Ryu et al., DGQ, ICLR 2025",
    year=2025,
    bits="W8A8, W4A8, W4A6",
    needs_calibration=True,
    needs_gradients=False,
    sized_by_recording=True,
    whole_run=("samples",),
    native=("none: codes are decoded, then multiplied in floating point",),
    seconds_per_million_weights=5.0,
)


@method("dgq", config=DgqConfig, info=INFO)
def load() -> ModuleType:
    """Import the maths."""
    from quant.methods.dgq import core

    return core


__all__ = ["INFO", "DgqConfig", "load"]
