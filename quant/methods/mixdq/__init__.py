"""MixDQ: sink tokens kept apart, bits allocated by an integer program (Zhao et al., ECCV 2024)."""

from __future__ import annotations

from quant.methods.mixdq.config import LayerBits, MixdqConfig
from quant.registry import Method, MethodInfo

METHOD = Method(
    "mixdq",
    MixdqConfig,
    MethodInfo(
        title="MixDQ: metric-decoupled mixed precision",
        paper="Zhao et al., MixDQ, ECCV 2024, arXiv 2405.17873",
        year=2024,
        bits="W8A8, W4A8 on average",
        needs_calibration=True,
        needs_gradients=False,
        native=("int8 tensor cores; inputs rounded in 16 bit",),
        seconds_per_million_weights=0.3,
    ),
    core="quant.methods.mixdq.core",
)

__all__ = ["METHOD", "LayerBits", "MixdqConfig"]
