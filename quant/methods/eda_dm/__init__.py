"""EDA-DM: calibration by density and diversity, fine-grained block reconstruction (Liu et al., 2024)."""

from __future__ import annotations

from quant.methods.eda_dm.config import EdaDmConfig
from quant.registry import Method, MethodInfo

METHOD = Method(
    "eda_dm",
    EdaDmConfig,
    MethodInfo(
        title="EDA-DM: enhanced distribution alignment",
        paper="Liu et al., EDA-DM, 2024, arXiv 2401.04585",
        year=2024,
        bits="W8A8, W4A8",
        needs_calibration=True,
        needs_gradients=True,
        native=("int8 tensor cores; inputs rounded in 16 bit",),
        seconds_per_million_weights=60.0,
    ),
    core="quant.methods.eda_dm.core",
)

__all__ = ["METHOD", "EdaDmConfig"]
