"""QuEST: fine-tune the layers that see time, then those that measurement finds sensitive; freeze the rest."""

from __future__ import annotations

from quant.methods.quest.config import QuestConfig
from quant.registry import Method, MethodInfo

METHOD = Method(
    "quest",
    QuestConfig,
    MethodInfo(
        title="QuEST: selective fine-tuning",
        paper="Wang et al., QuEST, ICCV 2025, arXiv 2402.03666",
        year=2024,
        bits="W4A4, W4A8",
        needs_calibration=True,
        needs_gradients=True,
        trains=True,
        native=("int8 tensor cores; inputs rounded in 16 bit",),
        seconds_per_million_weights=4.0,
    ),
    core="quant.methods.quest.core",
)

__all__ = ["METHOD", "QuestConfig"]
