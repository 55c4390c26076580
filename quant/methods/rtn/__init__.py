"""Round to nearest: the baseline every other method stands beside."""

from __future__ import annotations

from quant.methods.rtn.config import RtnConfig
from quant.registry import Method, MethodInfo

METHOD = Method(
    "rtn",
    RtnConfig,
    MethodInfo(
        title="Round to nearest",
        paper="",
        year=2017,
        bits="W8A8, W6A6, W4A8, W4A4",
        needs_calibration=False,
        needs_gradients=False,
        native=("int8 tensor cores (W8A8, W6A6)",),
        seconds_per_million_weights=0.05,
    ),
    core="quant.methods.rtn.core",
)

__all__ = ["METHOD", "RtnConfig"]
