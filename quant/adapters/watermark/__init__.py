"""A message in the decoder's low-rank factors, which every picture that it makes then carries."""

from __future__ import annotations

from quant.adapters.watermark.config import WatermarkConfig
from quant.registry import Method, MethodInfo

ADAPTER = Method(
    "watermark",
    WatermarkConfig,
    MethodInfo(
        title="LoRA watermark in the latent decoder (EW-LoRA)",
        paper="Lin et al. 2026, Expert Systems with Applications 331, arXiv 2410.20202",
        year=2024,
        bits="any: it adds to a decoder of any bit-width",
        needs_calibration=False,
        needs_gradients=True,
        native=("any",),
    ),
    core="quant.adapters.watermark.core",
)

__all__ = ["ADAPTER", "WatermarkConfig"]
