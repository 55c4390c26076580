"""The flat numbers of a reconstruction run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from brainit import metrics
from lab.errors import MissingDataError

if TYPE_CHECKING:
    from lab.decoding.encoder.correlation import BrainCorrelation

Scorer = Callable[[np.ndarray], np.ndarray]
"""Pictures (n, H, W[, 3]) to one score each."""
_BATCH = 64
#: Pictures below this side hold too little for an ImageNet network.
SMALLEST = 48


def flat_metrics(
    truth: np.ndarray,
    arms: Mapping[str, np.ndarray | Sequence[np.ndarray]],
    n_draws: int,
    seed: int,
    brain: BrainCorrelation | None = None,
    each: dict[str, Mapping[str, np.ndarray]] | None = None,
) -> dict[str, Any]:
    """Score all arms against the stimuli (n, H, W[, 3]); the arm ``quantized`` carries no prefix.

    ``brain`` is the subject's scorer (`lab.decoding.encoder.correlation.brain_correlation`); ``each`` is
    filled with every picture's own scores.
    """
    networks, more = networks_for(truth), scorers_for(truth, brain)
    flat: dict[str, Any] = dict(
        metrics.compare(
            truth,
            arms,
            main="quantized",
            reference="fp",
            seed=seed,
            n_draws=n_draws,
            networks=networks,
            more=more,
            each=each,
        )
    )
    if networks:
        flat["two_way_feature.network"] = "EfficientNet-Lite0, head"
    if brain is not None:
        flat["brain_correlation.stimuli"] = float(brain(truth).mean())
        flat["brain_correlation.encoder"] = brain.encoder
    return flat


def scorers_for(truth: np.ndarray, brain: BrainCorrelation | None = None) -> dict[str, Scorer]:
    """Return what scores pictures one by one: ST-LPIPS to the stimulus, where it can be, and ``brain``."""
    found: dict[str, Scorer] = {} if brain is None else {"brain_correlation": brain}
    if min(truth.shape[1:3]) < SMALLEST:
        return found
    import torch

    from lab.images import planes
    from lab.metrics.stlpips import load_stlpips

    try:
        network = load_stlpips()
    except MissingDataError:
        return found

    def distance(pictures: np.ndarray) -> np.ndarray:
        pairs = zip(planes(pictures).split(_BATCH), planes(truth).split(_BATCH), strict=True)
        with torch.inference_mode():
            return torch.cat([network(a, b) for a, b in pairs]).double().numpy()

    return {"st_lpips": distance} | found


def recognised(pictures: np.ndarray, places: Sequence[int], truth: np.ndarray) -> np.ndarray | None:
    """Say of single pictures among how many of the other stimuli each is nearer to its own.

    Parameters
    ----------
    pictures : float array of shape (k, H, W[, 3])
        In 0..1.
    places : sequence of int
        Where in `truth` each one's stimulus is.
    truth : float array of shape (n, H, W[, 3])
        All stimuli of the test.

    Returns
    -------
    float array of shape (k,), or None
        Share of the n - 1 others, by correlation of the ImageNet network's features; ties fail, chance is .5.
        None where there is no such network, or pictures are too small for one.
    """
    import torch

    from brainit.metrics import tensors

    networks = networks_for(truth)
    if not networks or len(truth) < 2:
        return None
    near = [torch.from_numpy(np.asarray(networks["feature"](some))) for some in (pictures, truth)]
    block = tensors.correlations(*near)
    own = block[list(places), range(len(pictures))]
    return ((block < own).double().sum(0) / (len(truth) - 1)).numpy()


def networks_for(truth: np.ndarray) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return the ImageNet network, where it is installed and pictures are large enough to mean anything."""
    if min(truth.shape[1:3]) < SMALLEST:
        return {}
    from lab.images import planes
    from lab.metrics.distances import pooled_features
    from lab.metrics.efficientnet import load_efficientnet

    try:
        network = load_efficientnet()
    except MissingDataError:
        return {}

    def features(pictures: np.ndarray) -> np.ndarray:
        return pooled_features(network, planes(pictures), "head")

    return {"feature": features}
