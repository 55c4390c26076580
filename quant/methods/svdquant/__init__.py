"""SVDQuant: outliers into the weights, the weights' top rank into a 16-bit branch, 4 bits for the rest."""

from __future__ import annotations

from quant.methods.svdquant.config import SvdQuantConfig
from quant.registry import Method, MethodInfo

METHOD = Method(
    "svdquant",
    SvdQuantConfig,
    MethodInfo(
        title="SVDQuant",
        paper="Li, Lin, Zhang et al., SVDQuant: Absorbing Outliers by Low-Rank Components for 4-Bit "
        "Diffusion Models, ICLR 2025, arXiv 2411.05007",
        year=2024,
        bits="W4A4, W8A8",
        needs_calibration=True,
        needs_gradients=False,
        native=("int8 tensor cores (W8A8)", "e4m3 or int8 tensor cores (W4A4, scales=pow2 or int)"),
        seconds_per_million_weights=12.0,
    ),
    core="quant.methods.svdquant.core",
)

__all__ = ["METHOD", "SvdQuantConfig"]
