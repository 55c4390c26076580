"""How strong should diffusion be? Answered on left-out training trials, never on test trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from brainit import datasets, metrics
from brainit.subject import Subject
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
        First the structural picture itself, then a row for each setting: tokens, strength, n_samples and mean
        scores. Brain-IT's tokens of a training trial come from a fit to the other two thirds.
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
    denoiser = zoo.load(config.denoiser)
    conditions = {"picture": tokens_of(start), "brainit": _left_out_tokens(config, train, progress)[chosen]}
    rows = [{"tokens": "none", "strength": 0.0, "n_samples": 0, **_means(seen, truth)}]
    for name, strength in product(conditions, strengths):
        one = config.model_copy(update={"strength": strength, "n_samples": 1})
        shape, drawn = truth.shape[1:], []
        for number in range(max(n_samples)):
            drawn.append(draw(one, denoiser, conditions[name], start, number, shape, "cpu", progress))
        for k in n_samples:
            scores = _means(np.mean(drawn[:k], 0), truth)
            rows.append({"tokens": name, "strength": strength, "n_samples": k, **scores})
    return rows


def _left_out_tokens(
    config: ReconstructConfig, train: Subject, progress: Progress, folds: int = 3
) -> np.ndarray:
    """Return Brain-IT's tokens (n, 17, 192) of every training trial, by networks that have not seen it."""
    from brainit.fitting import fit
    from lab.jobs.brain_data import prior_targets, zoo_targets
    from lab.jobs.brain_structure import predictions

    external = prior_targets(config.external, config.seed, progress)
    fold = np.random.default_rng(config.seed).permutation(train.n_trials) % folds
    out: dict[int, np.ndarray] = {}
    for k in range(folds):
        split = np.where(fold == k, "test", "train")
        part = replace(train, split=split)
        decoder = fit([part], zoo_targets([part], progress), config.brain, None, progress, external=external)
        out |= dict(
            zip(np.flatnonzero(fold == k), predictions(decoder, part.part("test"))["tokens"], strict=True)
        )
    return np.stack([out[i] for i in range(train.n_trials)])


def _means(pictures: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {k: round(v, 4) for k, v in metrics.score(pictures, truth).means().items()}
