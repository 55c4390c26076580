"""EfficientDM: low-rank adapters merged before quantizing, scale-aware rates, input steps by timestep."""

from __future__ import annotations

from quant.methods.efficientdm.config import EfficientDmConfig
from quant.registry import Method, MethodInfo

METHOD = Method(
    "efficientdm",
    EfficientDmConfig,
    MethodInfo(
        title="EfficientDM: quantization-aware low-rank fine-tuning",
        paper="He et al., EfficientDM, ICLR 2024, arXiv 2310.03270",
        year=2024,
        bits="W4A4, W4A8, W2A8",
        needs_calibration=True,
        needs_gradients=True,
        trains=True,
        sized_by_recording=True,
        native=("none yet: scales by timestep are simulated",),
        seconds_per_million_weights=1.0,
    ),
    core="quant.methods.efficientdm.core",
)

__all__ = ["METHOD", "EfficientDmConfig"]
