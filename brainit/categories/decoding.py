"""Category decoding: leave one run out, with a permutation test.

The decoder is a regularised least-squares classifier on one-hot labels. Its hat matrix depends on features
and runs alone, so ten thousand permutations of the labels cost as many small matrix products, and the
permutation test repeats exactly what was done with the true labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from brainit.errors import InputError
from brainit.progress import Progress, silent


@dataclass(frozen=True)
class CategoryScore:
    """Leave-one-run-out category accuracy.

    Parameters
    ----------
    accuracy : float
        Share of trials whose category was right, 0..1.
    interval : (float, float)
        95 % Wilson interval of the accuracy over trials.
    p : float
        Share of label permutations that do at least as well, (1 + hits) / (1 + n_permutations).
    chance : float
        Accuracy of always naming the most frequent category.
    null_mean : float
        Mean accuracy over permutations.
    n_trials, n_permutations : int
    per_run, per_category : mapping of str to float
    predicted : str array of shape (n_trials,)
    confusion : int array of shape (n_classes, n_classes)
        Rows true, columns predicted, in the order of ``classes``.
    classes : tuple of str
    """

    accuracy: float
    interval: tuple[float, float]
    p: float
    chance: float
    null_mean: float
    n_trials: int
    n_permutations: int
    per_run: Mapping[str, float]
    per_category: Mapping[str, float]
    predicted: np.ndarray
    confusion: np.ndarray
    classes: tuple[str, ...]

    def line(self) -> str:
        """Say the result in one line."""
        low, high = self.interval
        return (
            f"accuracy {self.accuracy:.3f} [{low:.3f}, {high:.3f}] over {self.n_trials} trials, "
            f"chance {self.chance:.3f}, p = {self.p:.2g} ({self.n_permutations} permutations)"
        )


def decode_category(
    features: np.ndarray,
    labels: np.ndarray,
    runs: np.ndarray,
    *,
    ridge: float = 1.0,
    n_permutations: int = 2000,
    seed: int = 0,
    progress: Progress = silent,
) -> CategoryScore:
    """Decode each trial's category from the other runs, and test it by permuting labels within runs.

    For each held-out run the features are standardised by the other runs, and with kernel K of the training
    trials and K* between test and training, scores = K* (K + ridge * trace(K) / n * I)^-1 (Y - mean Y).

    Parameters
    ----------
    features : array of shape (n_trials, ...)
        Betas, tokens or anything else; flattened.
    labels : array of shape (n_trials,)
    runs : array of shape (n_trials,)
        Trials of one run are held out together, and labels are permuted within it.
    ridge : float
        Regularisation, as a multiple of the kernel's mean diagonal; fixed, so nothing is tuned.
    n_permutations : int
        0 skips the test (p is NaN).
    seed : int
    progress : callable

    Returns
    -------
    CategoryScore

    Raises
    ------
    InputError
        Lengths differ, features are not finite, or there are fewer than two runs or categories.
    """
    flat = np.asarray(features, np.float64).reshape(len(features), -1)
    labels, runs = np.asarray(labels).astype(str), np.asarray(runs)
    if not len(flat) == len(labels) == len(runs):
        raise InputError(f"{len(flat)} trials, {len(labels)} labels and {len(runs)} runs; they must be equal")
    if not np.isfinite(flat).all():
        raise InputError("features hold NaN or infinite values; drop those voxels first")
    classes, codes = np.unique(labels, return_inverse=True)
    held = np.unique(runs)
    if len(held) < 2 or len(classes) < 2:
        raise InputError(
            f"{len(held)} run and {len(classes)} categories; leaving one run out needs at least 2 of each"
        )
    hats = [_hat(flat, runs == run, ridge) for run in held]
    onehot = np.eye(len(classes))
    predicted = _predict(hats, onehot[codes])
    rng = np.random.default_rng(seed)
    within = [np.flatnonzero(runs == run) for run in held]
    null = np.empty(n_permutations)
    for k in range(n_permutations):
        shuffled = codes.copy()
        for trials in within:
            shuffled[trials] = rng.permutation(codes[trials])
        null[k] = (_predict(hats, onehot[shuffled]) == shuffled).mean()
        progress(k + 1, n_permutations, "permutations")
    return _summary(classes, codes, predicted, runs, null)


def score_predictions(
    predicted: np.ndarray,
    labels: np.ndarray,
    runs: np.ndarray,
    *,
    n_permutations: int = 2000,
    seed: int = 0,
) -> CategoryScore:
    """Score out-of-fold predictions of any decoder, and test them by permuting labels within runs.

    The predictions stay as they are: nothing is trained again. The test therefore asks whether labels and
    predictions of held-out runs go together more often than if each run's labels had been dealt at random,
    which is exact where trials of a run are exchangeable. It says nothing of how the training would have
    fared on permuted labels, as `decode_category`'s own test does.

    Parameters
    ----------
    predicted, labels : str array of shape (n_trials,)
        What was predicted for each trial by a decoder that never saw its run, and what it was.
    runs : array of shape (n_trials,)
    n_permutations, seed : int

    Returns
    -------
    CategoryScore

    Raises
    ------
    InputError
        Lengths differ, or a prediction is none of the categories.
    """
    labels, predicted = np.asarray(labels).astype(str), np.asarray(predicted).astype(str)
    runs = np.asarray(runs)
    if not len(predicted) == len(labels) == len(runs):
        raise InputError(
            f"{len(predicted)} predictions, {len(labels)} labels and {len(runs)} runs; they must be equal"
        )
    classes, codes = np.unique(labels, return_inverse=True)
    strange = sorted(set(predicted.tolist()) - set(classes.tolist()))
    if strange:
        raise InputError(f"predicted category {strange[0]!r} is none of {', '.join(classes)}")
    named = np.searchsorted(classes, predicted)
    rng = np.random.default_rng(seed)
    within = [np.flatnonzero(runs == run) for run in np.unique(runs)]
    null = np.empty(n_permutations)
    for k in range(n_permutations):
        null[k] = sum((rng.permutation(codes[trials]) == named[trials]).sum() for trials in within)
    return _summary(classes, codes, named, runs, null / len(codes))


def _summary(
    classes: np.ndarray, codes: np.ndarray, predicted: np.ndarray, runs: np.ndarray, null: np.ndarray
) -> CategoryScore:
    """Put accuracy, interval, permutation p and confusions together; all arrays hold class numbers."""
    right = predicted == codes
    accuracy = float(right.mean())
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (codes, predicted), 1)
    n = len(null)
    return CategoryScore(
        accuracy=accuracy,
        interval=_wilson(int(right.sum()), len(right)),
        # the tiny slack keeps equal accuracies equal in floating point
        p=float((1 + (null >= accuracy - 1e-12).sum()) / (1 + n)) if n else float("nan"),
        chance=float(np.bincount(codes).max() / len(codes)),
        null_mean=float(null.mean()) if n else float("nan"),
        n_trials=len(codes),
        n_permutations=n,
        per_run={str(run): float(right[runs == run].mean()) for run in np.unique(runs)},
        per_category={str(c): float(right[codes == i].mean()) for i, c in enumerate(classes)},
        predicted=classes[predicted],
        confusion=confusion,
        classes=tuple(classes.tolist()),
    )


def _hat(flat: np.ndarray, test: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean, std = flat[~test].mean(0), flat[~test].std(0)
    scaled = (flat - mean) / np.where(std > 1e-12, std, np.inf)
    kernel = scaled[~test] @ scaled[~test].T
    n = len(kernel)
    # the floor keeps a kernel of zeros (all features constant) solvable: scores are then all equal
    kernel[np.diag_indices(n)] += max(ridge * np.trace(kernel) / n, 1e-12)
    cross = scaled[test] @ scaled[~test].T
    return test, ~test, np.linalg.solve(kernel, cross.T).T


def _predict(hats: list[tuple[np.ndarray, np.ndarray, np.ndarray]], targets: np.ndarray) -> np.ndarray:
    out = np.empty(len(targets), np.int64)
    for test, train, hat in hats:
        mean = targets[train].mean(0)
        out[test] = (hat @ (targets[train] - mean) + mean).argmax(1)
    return out


def _wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # at 0 and 1 the limits equal the share but for rounding
    return float(np.clip(centre - half, 0, share)), float(np.clip(centre + half, share, 1))
