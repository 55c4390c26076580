"""Universal Brain Encoder: pictures to voxels, one network for all subjects, one vector a voxel.

>>> from brainit.voxels.universal import collect, fit_universal, parse_encoder  # doctest: +SKIP
>>> trials, ids = collect(subjects)                                             # doctest: +SKIP
>>> fitted = fit_universal(backbone, pictures, trials, parse_encoder())         # doctest: +SKIP
>>> fitted.encoder.embeddings()                                                 # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainit.voxels.trials import VoxelTrials
    from brainit.voxels.universal.backbone import Backbone, dinov2
    from brainit.voxels.universal.config import EncoderConfig, parse_encoder
    from brainit.voxels.universal.data import collect
    from brainit.voxels.universal.fit import fit_universal
    from brainit.voxels.universal.fitted import Fitted
    from brainit.voxels.universal.model import UniversalEncoder
    from brainit.voxels.universal.score import VoxelScore, score_voxels

_HOME = {
    "Backbone": "backbone",
    "EncoderConfig": "config",
    "Fitted": "fitted",
    "UniversalEncoder": "model",
    "VoxelScore": "score",
    "VoxelTrials": "data",
    "collect": "data",
    "dinov2": "backbone",
    "fit_universal": "fit",
    "parse_encoder": "config",
    "score_voxels": "score",
}
__all__ = [
    "Backbone",
    "EncoderConfig",
    "Fitted",
    "UniversalEncoder",
    "VoxelScore",
    "VoxelTrials",
    "collect",
    "dinov2",
    "fit_universal",
    "parse_encoder",
    "score_voxels",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: settings are read without torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
