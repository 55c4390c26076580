"""LRQ-DiT: twin-log weights and adaptive rotation for 3 and 4 bits."""

from __future__ import annotations

from quant.methods.lrq_dit.config import LrqDitConfig
from quant.registry import Method, MethodInfo

METHOD = Method(
    "lrq_dit",
    LrqDitConfig,
    MethodInfo(
        title="LRQ-DiT (twin-log weights, adaptive rotation)",
        paper="Yang et al., LRQ-DiT, arXiv 2508.03485",
        year=2025,
        bits="W4A4, W3A4",
        needs_calibration=True,
        needs_gradients=False,
        native=("int8 tensor cores, two products; rotation in 16 bit",),
        seconds_per_million_weights=1.0,
    ),
    core="quant.methods.lrq_dit.core",
)

__all__ = ["METHOD", "LrqDitConfig"]
