"""A Gaussian mixture of very many voxels, fitted in small batches (stepwise EM, Cappé & Moulines 2009).

Where scikit-learn's mixture takes every voxel in every iteration, here each batch moves running means of the
sufficient statistics, s ← (1 - η_t) s + η_t s_batch with η_t = (t + 2)^-0.7, and the parameters follow. A few
passes over 316,000 voxels of 256 dimensions are enough, and memory is a batch's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans

from brainit.errors import InputError
from brainit.progress import Progress, silent

_START = 50_000
"""Voxels that find the first centres."""
_FORGET = 0.7
"""Exponent of the step size; between .5 and 1."""


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture of k Gaussians.

    Parameters
    ----------
    weights : float64 tensor of shape (k,)
    means : float64 tensor of shape (k, d)
    covariance : float64 tensor of shape (k, d) or (k, d, d)
        Variances, or whole matrices.
    """

    weights: torch.Tensor
    means: torch.Tensor
    covariance: torch.Tensor

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """Return the log of weight times density of each component, (n, k)."""
        d = x.shape[1]
        if self.covariance.ndim == 2:
            precision = 1 / self.covariance
            square = (x**2) @ precision.T - 2 * x @ (self.means * precision).T
            square = square + (self.means**2 * precision).sum(1)
            log_det = self.covariance.log().sum(1)
        else:
            lower = torch.linalg.cholesky(self.covariance)
            columns = []
            for mean, factor in zip(self.means, lower, strict=True):
                z = torch.linalg.solve_triangular(factor, (x - mean).T, upper=False)
                columns.append((z**2).sum(0))
            square = torch.stack(columns, 1)
            log_det = 2 * lower.diagonal(dim1=1, dim2=2).log().sum(1)
        return self.weights.log() - 0.5 * (square + log_det + d * math.log(2 * math.pi))

    def predict(self, x: np.ndarray, *, batch: int = 8192) -> np.ndarray:
        """Return the likeliest component of each row of x (n, d): int64 (n,)."""
        found = [
            self.log_density(torch.from_numpy(x[i : i + batch]).to(self.means)).argmax(1).cpu()
            for i in range(0, len(x), batch)
        ]
        return torch.cat(found).numpy()

    def log_likelihood(self, x: np.ndarray, *, batch: int = 8192) -> float:
        """Return the mean log-likelihood of the rows of x (n, d)."""
        parts = (torch.from_numpy(x[i : i + batch]).to(self.means) for i in range(0, len(x), batch))
        return sum(float(self.log_density(part).logsumexp(1).sum()) for part in parts) / len(x)


def fit_mixture(
    x: np.ndarray,
    k: int,
    *,
    covariance: str = "full",
    batch: int = 8192,
    passes: int = 5,
    seed: int = 0,
    ridge: float = 1e-5,
    device: str = "cpu",
    progress: Progress = silent,
) -> Mixture:
    """Fit k Gaussians to the rows of x (n, d) in batches.

    Parameters
    ----------
    x : array of shape (n, d)
        May be a memory map.
    k : int
    covariance : {"full", "diag"}
    batch, passes : int
        Rows a step, and passes over all of them.
    seed : int
        Decides first centres and order.
    ridge : float
        Added to variances.
    device : str
    progress : callable

    Returns
    -------
    Mixture
        In float64, on the CPU.
    """
    if covariance not in ("full", "diag"):
        raise InputError(f"covariance is {covariance!r}; allowed: full, diag")
    n = len(x)
    if not 1 <= k <= n:
        raise InputError(f"a mixture of {k} needs at least as many voxels, and 1 at least; there are {n}")
    rng = np.random.default_rng(seed)
    some = np.asarray(x[np.sort(rng.permutation(n)[:_START])], np.float32)
    first = MiniBatchKMeans(k, batch_size=4096, n_init=3, random_state=seed).fit(some).labels_
    hard = torch.nn.functional.one_hot(torch.from_numpy(first).long(), k).double().to(device)
    stats = _statistics(torch.from_numpy(some).to(device).double(), hard, covariance)
    steps = -(-n // batch)
    for step in range(passes * steps):
        if step % steps == 0:
            order = rng.permutation(n)
        progress(step, passes * steps, "mixture of voxels")
        rows = np.sort(order[step % steps * batch :][:batch])
        part = torch.from_numpy(np.asarray(x[rows])).to(device).double()
        share = _mixture(stats, ridge).log_density(part).softmax(1)
        rate = (step + 2) ** -_FORGET
        fresh = _statistics(part, share, covariance)
        stats = tuple((1 - rate) * old + rate * new for old, new in zip(stats, fresh, strict=True))
    done = _mixture(stats, ridge)
    return Mixture(done.weights.cpu(), done.means.cpu(), done.covariance.cpu())


def _statistics(
    x: torch.Tensor, share: torch.Tensor, covariance: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean over rows of responsibilities, of their products with x, and with its square or outer product."""
    n = len(x)
    if covariance == "diag":
        second = share.T @ x**2
    else:
        second = torch.stack([(x * column[:, None]).T @ x for column in share.T])
    return share.sum(0) / n, share.T @ x / n, second / n


def _mixture(stats: tuple[torch.Tensor, ...], ridge: float) -> Mixture:
    zeroth, first, second = stats
    count = zeroth.clamp(min=1e-12)
    mean = first / count[:, None]
    if second.ndim == 2:
        spread = (second / count[:, None] - mean**2).clamp(min=0) + ridge
    else:
        spread = second / count[:, None, None] - mean[:, :, None] * mean[:, None]
        spread = spread + ridge * torch.eye(mean.shape[1]).to(mean)
    return Mixture(count / count.sum(), mean, spread)
