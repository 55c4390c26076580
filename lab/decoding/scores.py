"""The flat numbers of a reconstruction run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from brainit import metrics
from lab.errors import MissingDataError

#: Pictures below this side hold too little for an ImageNet network.
SMALLEST = 48


def flat_metrics(
    truth: np.ndarray, arms: Mapping[str, np.ndarray | Sequence[np.ndarray]], n_draws: int, seed: int
) -> dict[str, Any]:
    """Score all arms against the stimuli (n, H, W[, 3]); the arm ``quantized`` carries no prefix."""
    networks = networks_for(truth)
    flat: dict[str, Any] = dict(
        metrics.compare(
            truth, arms, main="quantized", reference="fp", seed=seed, n_draws=n_draws, networks=networks
        )
    )
    if networks:
        flat["two_way_feature.network"] = "EfficientNet-Lite0, head"
    return flat


def networks_for(truth: np.ndarray) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return the ImageNet network, where it is installed and pictures are large enough to mean anything."""
    if truth.ndim != 4 or truth.shape[1] < SMALLEST:
        return {}
    import torch

    from lab.metrics.distances import pooled_features
    from lab.metrics.efficientnet import load_efficientnet

    try:
        network = load_efficientnet()
    except MissingDataError:
        return {}

    def features(pictures: np.ndarray) -> np.ndarray:
        return pooled_features(network, torch.from_numpy(pictures).permute(0, 3, 1, 2).float(), "head")

    return {"feature": features}
