"""BinaryDM: one bit a weight, two learned bases in outer blocks, features mimicked in few directions."""

from __future__ import annotations

from quant.methods.binarydm.config import BinaryDmConfig
from quant.registry import Method, MethodInfo

METHOD = Method(
    "binarydm",
    BinaryDmConfig,
    MethodInfo(
        title="BinaryDM: binary weights",
        paper="Zheng et al., BinaryDM, 2024, arXiv 2404.05662v1",
        year=2024,
        bits="W1A4, W1A8",
        needs_calibration=True,
        needs_gradients=True,
        trains=True,
        native=("int8 tensor cores, a product a basis",),
        seconds_per_million_weights=1.0,
    ),
    core="quant.methods.binarydm.core",
)

__all__ = ["METHOD", "BinaryDmConfig"]
