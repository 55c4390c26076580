"""Low-bit floating point: format and clip searched by tensor, learned rounding for 4-bit weights."""

from __future__ import annotations

from quant.methods.lowbit_fp.config import LowbitFpConfig
from quant.registry import Method, MethodInfo

METHOD = Method(
    "lowbit_fp",
    LowbitFpConfig,
    MethodInfo(
        title="Low-bit floating point",
        paper="Chen, Giannoula, Moshovos, Low-Bitwidth Floating Point Quantization for Efficient "
        "High-Quality Diffusion Models, IISWC 2024, arXiv 2408.06995",
        year=2024,
        bits="W8A8, W4A8",
        needs_calibration=True,
        needs_gradients=True,
        native=("fp8 tensor cores (e4m3fn presets)",),
        seconds_per_million_weights=15.0,
    ),
    core="quant.methods.lowbit_fp.core",
)

__all__ = ["METHOD", "LowbitFpConfig"]
