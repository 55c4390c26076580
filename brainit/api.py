"""The decoder's front door: fit, the decoder itself, targets, settings and the ablation.

>>> from brainit.api import TargetTable, fit, parse_config            # doctest: +SKIP
>>> decoder = fit([subject], TargetTable(ids, targets), parse_config())  # doctest: +SKIP
>>> prediction = decoder.predict(subject.part("test").mean_over_repeats())  # doctest: +SKIP
"""

from __future__ import annotations

from brainit.config import BrainITConfig, override, parse_config
from brainit.training.ablation import SWITCHES, ablation
from brainit.training.decoder import BrainDecoder
from brainit.training.fitting import fit
from brainit.training.targets import (
    Prediction,
    Targets,
    TargetTable,
    category_targets,
    nearest_category,
)

__all__ = [
    "SWITCHES",
    "BrainDecoder",
    "BrainITConfig",
    "Prediction",
    "TargetTable",
    "Targets",
    "ablation",
    "category_targets",
    "fit",
    "nearest_category",
    "override",
    "parse_config",
]
