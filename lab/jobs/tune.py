"""How strong should diffusion be? Answered on left-out training trials, never on test trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from brainit import datasets, metrics
from lab.config import ReconstructConfig
from lab.errors import InputError
from lab.jobs.brain_draw import draw
from lab.jobs.brain_structure import glyph_weights
from lab.progress import Progress, silent


def tune(
    config: ReconstructConfig,
    strengths: Sequence[float] = (0.1, 0.2, 0.3, 0.45),
    n_samples: Sequence[int] = (1, 4),
    every: int = 2,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Score strengths and numbers of averaged samples on held-out training trials, full precision.

    Parameters
    ----------
    config : ReconstructConfig
        With ``structure: posterior``, whose held-out pictures of training trials are what is decoded.
    every : int
        Take every so many training trials.

    Returns
    -------
    list of dict
        First the structural picture itself, then a row for each setting: strength, n_samples and mean scores.
    """
    if config.structure != "posterior":
        raise InputError(
            f"tuning needs structural pictures of left-out training trials, which "
            f"structure={config.structure!r} does not give; allowed: posterior"
        )
    from brainit.posterior import fit_posterior
    from lab import zoo
    from lab.images import to_model
    from lab.jobs.reconstruct import tokens_of

    train = datasets.open(config.dataset, config.root, config.subject, **config.options).part("train")
    train = train.mean_over_repeats()
    pictures = train.images()
    fitted = fit_posterior(train.betas, pictures, glyph_weights(), seed=config.seed, progress=progress)
    chosen = np.arange(0, len(pictures), every)
    truth, seen = pictures[chosen], fitted.held_out().picture[chosen]
    start = to_model(seen).numpy()
    tokens, denoiser = tokens_of(start), zoo.load(config.denoiser)
    rows = [{"strength": 0.0, "n_samples": 0, **_means(seen, truth)}]
    for strength in strengths:
        drawn = []
        for number in range(max(n_samples)):
            one = config.model_copy(update={"strength": strength, "n_samples": 1})
            drawn.append(draw(one, denoiser, tokens, start, number, truth.shape[1:], "cpu", progress))
        for k in n_samples:
            rows.append({"strength": strength, "n_samples": k, **_means(np.mean(drawn[:k], 0), truth)})
    return rows


def _means(pictures: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {k: round(v, 4) for k, v in metrics.score(pictures, truth).means().items()}
