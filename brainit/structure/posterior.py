"""Pictures from voxels by Bayes' rule: an encoding model, a prior over pictures, a posterior on its draws.

With S candidate pictures s drawn from the prior, the posterior of a trial with response x is

    ``w_s ∝ p(x | s)^b``,    ``mean = Σ_s w_s s``,

p(x | s) from :mod:`brainit.structure.encoding`, temperature b and the feature map from
:mod:`brainit.structure.select`. The picture shown is the one of least expected loss
(:mod:`brainit.structure.risk`).

A prior is only as good as its fit to the stimuli. On training trials left out in turn, the posterior mean's
squared error is compared with that of ridge regression from voxels to pixels (the Gaussian baseline:
linear, Gaussian weights and noise); where ridge is better the prior *does not apply* and ridge's picture is
given instead, with samples that add ridge's own leave-one-out errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from brainit.errors import InputError
from brainit.progress import Progress, silent
from brainit.structure.encoding import Basis, EncodingModel, fit_encoding, log_likelihood
from brainit.structure.features import CANDIDATES, FeatureMap, check_pictures
from brainit.structure.priors import Prior, as_prior
from brainit.structure.risk import least_risk
from brainit.structure.select import Choice, choose, weights_of
from brainit.voxels.ridge import Ridge, fit_ridge_loo

_RISK_SAMPLES = 100  # more changed nothing on held-out trials


@dataclass(frozen=True)
class Decoded:
    """What the posterior says of some trials.

    Parameters
    ----------
    picture : float32 array of shape (n, S, S[, 3])
        The picture of least expected loss, 0..1.
    mean : float32 array, same shape
        Posterior mean.
    std : float32 array, same shape
        Posterior standard deviation of each pixel.
    effective : float64 array of shape (n,)
        Effective number of candidates, ``1 / Σ w²``; a handful means that the prior's draws are too few.
    """

    picture: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    effective: np.ndarray


@dataclass(frozen=True)
class PicturePosterior:
    """A fitted posterior decoder; make one with :func:`fit_posterior`.

    Parameters
    ----------
    applies : bool
        Whether the prior beat ridge on held-out training trials.
    posterior_mse, ridge_mse : float
        Squared errors of that comparison: posterior mean (cross-validated), ridge (leave-one-out).
    choice : Choice
        Settings found by cross-validation, with the held-out posterior of each training trial.
    prior_name : str
    crisp : float
        Weight of 1 - SSIM in the loss that the shown picture minimises.
    """

    applies: bool
    posterior_mse: float
    ridge_mse: float
    choice: Choice
    prior_name: str
    crisp: float
    seed: int
    _candidates: np.ndarray
    _coordinates: np.ndarray
    _model: EncodingModel
    _ridge: Ridge
    _scale: np.ndarray
    _ridge_held_out: np.ndarray
    _ridge_errors: np.ndarray

    def decode(self, betas: np.ndarray) -> Decoded:
        """Decode responses of shape (n, n_voxels), voxels as in training."""
        betas = self._check(betas)
        shape = (len(betas), *self._candidates.shape[1:])
        if not self.applies:
            mean = np.clip(self._ridge.predict(betas / self._scale), 0, 1).astype(np.float32).reshape(shape)
            std = np.broadcast_to(self._ridge_errors.std(0).reshape(shape[1:]), shape).astype(np.float32)
            return Decoded(mean, mean, std, np.full(len(betas), float(len(self._ridge_errors))))
        return self._summarise(self._weights(betas))

    def held_out(self) -> Decoded:
        """Decode the training trials, each by a model that has not seen it (settings were chosen on them)."""
        if not self.applies:
            mean = np.clip(self._ridge_held_out, 0, 1).reshape(-1, *self._candidates.shape[1:])
            std = np.broadcast_to(self._ridge_errors.std(0).reshape(mean.shape[1:]), mean.shape)
            return Decoded(mean, mean, std, np.full(len(mean), float(len(mean))))
        return self._summarise(self.choice.held_out_weights.astype(np.float64))

    def _summarise(self, weights: np.ndarray) -> Decoded:
        flat = self._candidates.reshape(len(self._candidates), -1)
        shape = (len(weights), *self._candidates.shape[1:])
        w = weights.astype(np.float32)
        mean = np.clip(w @ flat, 0, 1)
        std = np.sqrt(np.maximum(w @ flat**2 - mean**2, 0)).reshape(shape)
        mean = mean.reshape(shape)
        samples = self._candidates[_systematic(weights, _RISK_SAMPLES, np.full(len(weights), 0.5))]
        picture = least_risk(samples, mean, crisp=self.crisp)
        return Decoded(picture, mean, std, 1 / (weights**2).sum(1))

    def sample(self, betas: np.ndarray, k: int, seed: int) -> np.ndarray:
        """Draw k posterior pictures of each trial: float32 (n, k, S, S[, 3]), equal for equal seeds."""
        betas = self._check(betas)
        rng = np.random.default_rng(seed)
        shape = (len(betas), k, *self._candidates.shape[1:])
        if not self.applies:
            errors = self._ridge_errors[rng.integers(len(self._ridge_errors), size=(len(betas), k))]
            pictures = self._ridge.predict(betas / self._scale)[:, None] + errors
            return np.clip(pictures, 0, 1).astype(np.float32).reshape(shape)
        index = _systematic(self._weights(betas), k, rng.random(len(betas)))
        return self._candidates[rng.permuted(index, axis=1)]

    def _weights(self, betas: np.ndarray) -> np.ndarray:
        h, information = self._model.statistics(betas, self.choice.gamma)
        return weights_of(self.choice.temperature * log_likelihood(h, information, self._coordinates))

    def _check(self, betas: np.ndarray) -> np.ndarray:
        betas = np.atleast_2d(np.asarray(betas, np.float64))
        expected = len(self._model.voxels)
        if betas.shape[1] != expected:
            raise InputError(f"betas have {betas.shape[1]} voxels, the posterior was fitted on {expected}")
        if not np.isfinite(betas).all():
            raise InputError(
                f"betas hold {int((~np.isfinite(betas)).sum())} values that are not finite; mask them"
            )
        return betas


def _scale(betas: np.ndarray) -> np.ndarray:
    """Return each voxel's standard deviation over training trials, 1 where it does not vary."""
    spread = betas.std(0)
    return np.where(spread > 1e-9 * max(float(spread.max()), 1e-30), spread, 1.0)


def _systematic(weights: np.ndarray, k: int, offset: np.ndarray) -> np.ndarray:
    """Systematic resampling: indices of shape (n, k), least variance for k draws."""
    at = (np.arange(k)[None] + offset[:, None]) / k
    total = np.cumsum(weights, 1)
    index = [np.searchsorted(c, a * c[-1]) for c, a in zip(total, at, strict=True)]
    return np.minimum(np.stack(index), weights.shape[1] - 1)


def fit_posterior(
    betas: np.ndarray,
    pictures: np.ndarray,
    prior: Prior | np.ndarray | str | Path,
    *,
    n_candidates: int = 20_000,
    n_select: int = 5_000,
    maps: Sequence[FeatureMap] = CANDIDATES,
    crisp: float = 0.1,
    seed: int = 0,
    progress: Progress = silent,
) -> PicturePosterior:
    """Fit on training trials only; every setting is chosen by cross-validation there.

    Parameters
    ----------
    betas : array of shape (n_trials, n_voxels)
        Training responses (mean over repeats, so that no stimulus is on both sides of a fold).
    pictures : array of shape (n_trials, S, S) or (n_trials, S, S, 3)
        What was shown, 0..1.
    prior : Prior, array of pictures, or path to glyph-prior weights
        Must hold no test stimulus.
    n_candidates, n_select : int
        Draws for decoding, and for choosing settings.
    maps : sequence of FeatureMap
        Feature maps to choose from.
    crisp : float
        Weight of 1 - SSIM beside squared error in the picture's loss; 0 shows the posterior mean.
    seed : int

    Returns
    -------
    PicturePosterior

    Raises
    ------
    InputError
        Unequal lengths, fewer than 8 trials, NaN, pictures that are not square or not in 0..1.

    Examples
    --------
    >>> fitted = fit_posterior(train.betas, train.images(), "glyph-prior.safetensors")  # doctest: +SKIP
    >>> fitted.decode(test.betas).picture.shape  # doctest: +SKIP
    (10, 28, 28)
    """
    betas, pictures = np.asarray(betas, np.float64), check_pictures(pictures, "the training stimuli")
    if betas.ndim != 2 or len(betas) != len(pictures):
        raise InputError(
            f"posterior: betas {betas.shape} and pictures {pictures.shape} must have equal trials"
        )
    if len(betas) < 8:
        raise InputError(
            f"posterior: {len(betas)} training trials; at least 8 are needed for cross-validation"
        )
    if not np.isfinite(betas).all():
        raise InputError(
            f"posterior: {int((~np.isfinite(betas)).sum())} betas are not finite; mask those voxels"
        )
    prior = as_prior(prior)
    candidates = prior.draw(n_candidates, pictures.shape[1], seed)
    if candidates.shape[1:] != pictures.shape[1:]:
        candidates = _match_colour(candidates, pictures)
    choice = choose(betas, pictures, candidates, n_select=n_select, maps=maps, seed=seed, progress=progress)
    flat = pictures.reshape(len(pictures), -1)
    scale = _scale(betas)
    ridge, held_out = fit_ridge_loo(betas / scale, flat)
    held_out = np.clip(held_out, 0, 1)
    posterior_mse = choice.errors[choice.temperature]
    ridge_mse = float(((held_out - flat) ** 2).mean())
    features = choice.features(pictures)
    basis = Basis.of(features)
    return PicturePosterior(
        applies=posterior_mse < ridge_mse,
        posterior_mse=posterior_mse,
        ridge_mse=ridge_mse,
        choice=choice,
        prior_name=prior.name,
        crisp=crisp,
        seed=seed,
        _candidates=candidates,
        _coordinates=basis.project(choice.features(candidates)),
        _model=fit_encoding(betas, basis.project(features)),
        _ridge=ridge,
        _scale=scale,
        _ridge_held_out=held_out,
        _ridge_errors=flat - held_out,
    )


def _match_colour(candidates: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """Give grey draws three channels for colour stimuli; colour draws for grey stimuli become luminance."""
    from brainit.structure.features import luminance

    if pictures.ndim == 4:
        return np.repeat(candidates[..., None], 3, -1)
    return luminance(candidates)
