"""DGQ: grouped inputs along the axis that needs it, a table for each timestep."""

from __future__ import annotations

from quant.methods.dgq.config import DgqConfig
from quant.registry import Method, MethodInfo

METHOD = Method(
    "dgq",
    DgqConfig,
    MethodInfo(
        title="DGQ (distribution-aware group quantization of inputs)",
        paper="Ryu et al., DGQ, ICLR 2025",
        year=2025,
        bits="W8A8, W4A8, W4A6",
        needs_calibration=True,
        needs_gradients=False,
        sized_by_recording=True,
        native=("none: codes are decoded, then multiplied in floating point",),
        seconds_per_million_weights=5.0,
    ),
    core="quant.methods.dgq.core",
)

__all__ = ["METHOD", "DgqConfig"]
