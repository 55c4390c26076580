"""All scores of one set of reconstructions, and several sets beside each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from brainit.errors import InputError
from brainit.metrics.identification import TWO_WAY_CHANCE, correlation_block, two_way, two_way_pix
from brainit.metrics.intervals import (
    Interval,
    bootstrap_interval,
    paired_interval,
    permutation_null,
    share_interval,
    sign_flip_p,
)
from brainit.metrics.pixels import constant_images, mse, pixcorr, psnr, ssim, ssim_gauss

SCORES = ("pixcorr", "ssim", "ssim_gauss", "mse", "two_way_pix")
PSNR_CAP = 100.0  # dB given to two equal pictures, so that means stay finite


@dataclass(frozen=True)
class Scores:
    """One value per picture for each score.

    Parameters
    ----------
    values : mapping of str to float64 array of shape (n,)
        Named as in ``metrics.json``.
    constant : int
        Pictures of one value everywhere, whose PixCorr was counted as 0.
    """

    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    constant: int = 0

    def means(self) -> dict[str, float]:
        """Mean over pictures of each score."""
        return {name: float(v.mean()) for name, v in self.values.items()}

    def summary(self, prefix: str = "", seed: int = 0, n_draws: int = 10_000) -> dict[str, float]:
        """Flat ``{name, name.low, name.high}`` with 95 % bootstrap bounds over pictures."""
        flat: dict[str, float] = {}
        for name, values in self.values.items():
            interval = interval_of(name)(values, n_draws=n_draws, seed=seed)
            flat[prefix + name] = interval.mean
            flat[f"{prefix}{name}.low"] = interval.low
            flat[f"{prefix}{name}.high"] = interval.high
        return flat


def interval_of(name: str) -> Callable[..., Interval]:
    """Return how the interval of a score's mean is found: identification is a share."""
    return share_interval if name.startswith(("two_way", "top1")) else bootstrap_interval


def score(
    reconstruction: np.ndarray,
    truth: np.ndarray,
    features: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    more: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
) -> Scores:
    """Score pictures against their stimuli.

    Parameters
    ----------
    reconstruction, truth : array of shape (n, H, W) or (n, H, W, 3)
        In 0..1, same order. The Gaussian SSIM is left out where a side is under 11 pixels, two-way where n
        is 1.
    features : mapping of str to (reconstruction features, truth features), optional
        Each adds ``two_way_<name>`` and ``top1_<name>`` (the own stimulus is the best of all n, 0 or 1);
        arrays of shape (n, ...).
    more : mapping of str to callable, optional
        ``scorer(reconstruction) -> (n,)``; each adds a score of its name.

    Examples
    --------
    >>> import numpy as np
    >>> stimuli = np.random.default_rng(0).random((4, 16, 16))
    >>> score(stimuli, stimuli).means()["two_way_pix"]
    1.0
    """
    values = {"pixcorr": pixcorr(reconstruction, truth), "ssim": ssim(reconstruction, truth)}
    if min(truth.shape[1:3]) >= 11:
        values["ssim_gauss"] = ssim_gauss(reconstruction, truth)
    values["mse"] = mse(reconstruction, truth)
    if len(truth) > 1:
        values["two_way_pix"] = two_way_pix(reconstruction, truth)
        for name, (ours, theirs) in (features or {}).items():
            found = values[f"two_way_{name}"] = two_way(ours, theirs)
            values[f"top1_{name}"] = (found == 1.0).astype(np.float64)
    for name, scorer in (more or {}).items():
        values[name] = np.asarray(scorer(reconstruction), np.float64)
    return Scores(values, int((constant_images(reconstruction) | constant_images(truth)).sum()))


def average_scores(runs: Sequence[Scores]) -> Scores:
    """Average each picture's score over runs (noise seeds), so that intervals are over pictures only."""
    if not runs:
        raise InputError("no scores to average; give at least one run")
    names = [n for n in runs[0].values if all(n in r.values for r in runs)]
    if len({len(v) for r in runs for v in r.values.values()}) != 1:
        raise InputError("runs scored different numbers of pictures; average runs of one test set only")
    return Scores({n: np.mean([r.values[n] for r in runs], 0) for n in names}, max(r.constant for r in runs))


def compare(
    truth: np.ndarray,
    sets: Mapping[str, np.ndarray | Sequence[np.ndarray]],
    main: str = "quantized",
    reference: str = "fp",
    seed: int = 0,
    n_draws: int = 10_000,
    networks: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    more: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    each: dict[str, Mapping[str, np.ndarray]] | None = None,
) -> dict[str, float]:
    """Score several sets of reconstructions of the same stimuli; the pictures' numbers of ``metrics.json``.

    Parameters
    ----------
    truth : array of shape (n, H, W) or (n, H, W, 3)
    sets : mapping of str to array like `truth`, or to a sequence of such arrays (one per noise seed)
        For example ``quantized, fp, ridge, mean_image``. Scores are averaged over noise seeds picture by
        picture.
    main : str
        The set whose scores carry no prefix; every other is ``<set>.<score>``.
    reference : str
        The set that `main` is paired with: ``paired_psnr_to_<reference>`` (dB, same fMRI and noise seed),
        absent where there is no such set.
    networks : mapping of str to callable, optional
        ``network(pictures) -> features (n, ...)``; each adds ``two_way_<name>`` and ``top1_<name>``.
    more : mapping of str to callable, optional
        ``scorer(pictures) -> (n,)``; each adds a score of its name.
    each : dict, optional
        Filled with what the numbers are means of: by set and score one value per picture, of shape (n,).

    Returns
    -------
    dict of str to float
        ``score``, ``score.low``, ``score.high`` per set; ``minus_<set>.<score>`` with bounds and ``.p`` (sign
        flips picture by picture), main minus that set; ``chance.two_way_pix``, ``chance.top1_<name>``, and
        ``chance.pixcorr`` with bounds and ``chance.pixcorr.p`` from random pairing.
    """
    if main not in sets:
        raise InputError(f"no set {main!r} among {sorted(sets)}; `main` names one of them")
    stacks = {name: _seeds(one, truth, name) for name, one in sets.items()}
    known = {name: network(truth) for name, network in (networks or {}).items()}

    def features(pictures: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {name: (network(pictures), known[name]) for name, network in (networks or {}).items()}

    scores = {
        name: average_scores([score(s, truth, features(s), more) for s in stack])
        for name, stack in stacks.items()
    }
    if each is not None:
        each.update({name: one.values for name, one in scores.items()})
    flat: dict[str, float] = {}
    for name, one in scores.items():
        flat.update(one.summary("" if name == main else f"{name}.", seed, n_draws))
    flat["constant_images"] = scores[main].constant
    for name, other in scores.items():
        if name == main:
            continue
        for key in scores[main].values:
            pair, stem = (scores[main].values[key], other.values[key]), f"minus_{name}.{key}"
            gap = paired_interval(*pair, n_draws=n_draws, seed=seed)
            flat.update({stem: gap.mean, f"{stem}.low": gap.low, f"{stem}.high": gap.high})
            flat[f"{stem}.p"] = sign_flip_p(*pair, n_draws=n_draws, seed=seed)
    flat["chance.two_way_pix"] = TWO_WAY_CHANCE
    flat.update({f"chance.top1_{name}": 1 / len(truth) for name in known})
    if len(truth) > 1:
        block = np.mean([np.nan_to_num(correlation_block(s, truth)) for s in stacks[main]], 0)
        null = permutation_null(block, n_draws=n_draws, seed=seed)
        flat.update({"chance.pixcorr": null.chance, "chance.pixcorr.low": null.low})
        flat.update({"chance.pixcorr.high": null.high, "chance.pixcorr.p": null.p})
    if reference in stacks and reference != main:
        ours, theirs = stacks[main], stacks[reference]
        if len(ours) != len(theirs):
            raise InputError(
                f"{len(ours)} noise seeds of {main!r} but {len(theirs)} of {reference!r}; pair them"
            )
        pairs = [psnr(a, b, cap=PSNR_CAP) for a, b in zip(ours, theirs, strict=True)]
        flat[f"paired_psnr_to_{reference}"] = float(np.mean(pairs))
    return flat


def _seeds(one: np.ndarray | Sequence[np.ndarray], truth: np.ndarray, name: str) -> list[np.ndarray]:
    if isinstance(one, np.ndarray) and one.ndim == truth.ndim:
        return [one]
    stacks = [np.asarray(a) for a in one]
    if not stacks or any(s.shape != truth.shape for s in stacks):
        raise InputError(f"set {name!r} has pictures unlike the stimuli's {truth.shape}; resize them first")
    return stacks
