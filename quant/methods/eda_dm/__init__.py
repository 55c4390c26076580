"""EDA-DM: calibration by density and diversity, fine-grained block reconstruction (Liu et al., 2024)."""

from __future__ import annotations

from types import ModuleType

from quant.methods.eda_dm.config import EdaDmConfig
from quant.registry import MethodInfo, method

INFO = MethodInfo(
    title="EDA-DM: enhanced distribution alignment",
    paper="Liu et al., EDA-DM, 2024, arXiv 2401.04585",
    year=2024,
    bits="W8A8, W4A8",
    needs_calibration=True,
    needs_gradients=True,
    whole_run=(
        "calibration",
        "points",
        "diversity",
        "radius",
        "radius_quantile",
        "feature_samples",
        "reconstruction",
        "layer_weight",
        "iterations",
        "batch_size",
        "rate_weight",
        "rate_scale",
        "drop",
        "regulariser",
        "as_released",
    ),
    native=("int8 tensor cores (W8A8)",),
    seconds_per_million_weights=60.0,
)


@method("eda_dm", config=EdaDmConfig, info=INFO)
def load() -> ModuleType:
    """Import the maths."""
    from quant.methods.eda_dm import core

    return core


__all__ = ["INFO", "EdaDmConfig", "load"]
