"""QVGen: low-rank helpers beside the rounded weights in training, which decay rank by rank and vanish."""

from __future__ import annotations

from quant.methods.qvgen.config import QvgenConfig
from quant.registry import Method, MethodInfo

METHOD = Method(
    "qvgen",
    QvgenConfig,
    MethodInfo(
        title="QVGen: training with a vanishing helper",
        paper="Huang et al., QVGen, ICLR 2026, arXiv 2505.11497",
        year=2025,
        bits="W4A4, W3A3, W2A4",
        needs_calibration=True,
        needs_gradients=True,
        trains=True,
        native=("none yet: dynamic asymmetric integers are simulated",),
        seconds_per_million_weights=4.0,
    ),
    core="quant.methods.qvgen.core",
)

__all__ = ["METHOD", "QvgenConfig"]
