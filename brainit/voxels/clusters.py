"""Group the voxels of all subjects into functional clusters, from training trials only.

Published: a Gaussian mixture with 128 components on L2-normalised voxel embeddings, one cluster a voxel,
shared by all subjects. Small data: k-means on the profile of responses to the training trials, or the data
set's own regions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.mixture import GaussianMixture

from brainit.errors import InputError
from brainit.voxels.mixture import fit_mixture

MANY = 50_000  # voxels; above, clusters are found in batches
SMALL = 5000  # voxels; below, the small-data defaults hold


@dataclass(frozen=True)
class Clusters:
    """Cluster of every voxel.

    Parameters
    ----------
    labels : mapping of str to int64 array of shape (n_voxels,)
    n_clusters : int
    method : str
    """

    labels: Mapping[str, np.ndarray]
    n_clusters: int
    method: str

    def occupancy(self) -> dict[str, Any]:
        """Report how full the clusters are over all subjects, and how many are empty in each."""
        counts = {name: np.bincount(own, minlength=self.n_clusters) for name, own in self.labels.items()}
        total = np.sum(list(counts.values()), axis=0)
        return {
            "method": self.method,
            "n_clusters": self.n_clusters,
            "smallest": int(total.min()),
            "median": float(np.median(total)),
            "largest": int(total.max()),
            "empty": int((total == 0).sum()),
            "empty_by_subject": {name: int((own == 0).sum()) for name, own in counts.items()},
        }


def default_n_clusters(n_voxels: int) -> int:
    """128 as published, 32 below 5,000 voxels a subject."""
    return 32 if n_voxels < SMALL else 128


def normalise(embeddings: np.ndarray) -> np.ndarray:
    """Scale rows to unit length (zero rows stay zero)."""
    x = np.asarray(embeddings, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _split(labels: np.ndarray, like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    ends = np.cumsum([len(own) for own in like.values()])[:-1]
    return dict(zip(like, np.split(labels.astype(np.int64), ends), strict=True))


def _bounded(n_clusters: int, n_voxels: int) -> int:
    if n_clusters < 1:
        raise InputError(f"n_clusters must be at least 1, got {n_clusters}")
    return min(n_clusters, n_voxels)


def mixture_clusters(
    embeddings: Mapping[str, np.ndarray],
    n_clusters: int = 128,
    *,
    covariance: str = "full",
    seed: int = 0,
    batched: bool | None = None,
    device: str = "cpu",
) -> Clusters:
    """Fit a Gaussian mixture on normalised embeddings of all subjects (k-means++ start, fixed seed).

    Parameters
    ----------
    embeddings : mapping of str to array of shape (n_voxels, dim)
    covariance : {"full", "diag"}
        "diag" is the fast option.
    batched : bool, optional
        In small batches (`brainit.voxels.mixture`); default where there are more than `MANY` voxels.
    device : str
        Where batches are worked on.
    """
    x = np.concatenate([normalise(own) for own in embeddings.values()])
    k = _bounded(n_clusters, len(x))
    name = "gmm" if covariance == "full" else "gmm-diag"
    if len(x) > MANY if batched is None else batched:
        mixture = fit_mixture(x.astype(np.float32), k, covariance=covariance, seed=seed, device=device)
        return Clusters(_split(mixture.predict(x), embeddings), n_clusters, f"{name}, in batches")
    model = GaussianMixture(
        k,
        covariance_type=covariance,
        init_params="k-means++",
        reg_covar=1e-5,
        random_state=seed,
        max_iter=100,
    )
    return Clusters(_split(model.fit_predict(x), embeddings), n_clusters, name)


def kmeans_clusters(
    embeddings: Mapping[str, np.ndarray], n_clusters: int = 32, *, seed: int = 0, method: str = "kmeans"
) -> Clusters:
    """Spherical k-means: k-means on normalised embeddings of all subjects."""
    x = np.concatenate([normalise(own) for own in embeddings.values()])
    k = _bounded(n_clusters, len(x))
    kind = KMeans if len(x) <= MANY else MiniBatchKMeans
    return Clusters(
        _split(kind(k, n_init=2, random_state=seed).fit_predict(x), embeddings), n_clusters, method
    )


def response_profiles(betas: np.ndarray, *, n_components: int = 32) -> np.ndarray:
    """Describe each voxel by its z-scored responses to training trials, in principal components.

    Returns float64 (n_voxels, at most n_components).
    """
    x = np.asarray(betas, np.float64).T
    x = x - x.mean(1, keepdims=True)
    x = normalise(x)
    x = x - x.mean(0)
    if x.shape[1] <= n_components:
        return x
    axes = np.linalg.eigh(x.T @ x)[1]
    return x @ axes[:, ::-1][:, :n_components]


def roi_clusters(roi: Mapping[str, Mapping[str, np.ndarray]], n_voxels: Mapping[str, int]) -> Clusters:
    """Use the data set's regions: one cluster a name (the first wins), one for voxels outside all."""
    names = sorted({key for own in roi.values() for key in own})
    if not names:
        raise InputError("clusters 'roi': this data set names no regions; choose profiles, kmeans or gmm")
    labels = {}
    for subject, count in n_voxels.items():
        own = np.full(count, len(names), np.int64)
        for index in reversed(range(len(names))):
            if names[index] in roi[subject]:
                own[np.asarray(roi[subject][names[index]], bool)] = index
        labels[subject] = own
    return Clusters(labels, len(names) + 1, "roi")


def anatomical_clusters(xyz: Mapping[str, np.ndarray], n_clusters: int = 32, *, seed: int = 0) -> Clusters:
    """Control: k-means on positions in mm."""
    x = np.concatenate([np.asarray(own, np.float64) for own in xyz.values()])
    if not np.isfinite(x).all():
        raise InputError(
            "clusters 'anatomical' need voxel positions, which this data set does not give; choose another"
        )
    k = _bounded(n_clusters, len(x))
    return Clusters(
        _split(KMeans(k, n_init=2, random_state=seed).fit_predict(x), xyz), n_clusters, "anatomical"
    )


def random_clusters(n_voxels: Mapping[str, int], n_clusters: int = 32, *, seed: int = 0) -> Clusters:
    """Control: equally large clusters at random."""
    rng = np.random.default_rng(seed)
    labels = {name: rng.permutation(np.arange(count) % n_clusters) for name, count in n_voxels.items()}
    return Clusters(labels, n_clusters, "random")


def nearest_voxels(new: np.ndarray, reference: np.ndarray, *, block: int = 4096) -> np.ndarray:
    """Find for each new voxel the reference voxel of nearest normalised embedding (functional match).

    Parameters
    ----------
    new, reference : arrays of shape (n_new, dim) and (n_reference, dim)

    Returns
    -------
    int64 array of shape (n_new,)
        Copy that voxel's cluster label, and its embedding as a start, for a new subject.
    """
    a, b = normalise(new).astype(np.float32), normalise(reference).astype(np.float32)
    return np.concatenate([(a[i : i + block] @ b.T).argmax(1) for i in range(0, len(a), block)])


@dataclass(frozen=True)
class Nearest:
    """For each voxel of a new subject the known voxel that works most alike.

    Parameters
    ----------
    labels : int64 array of shape (n_voxels,)
        Its cluster.
    subject : str array of shape (n_voxels,)
    voxel : int64 array of shape (n_voxels,)
        Whose voxel it is, and its number there: where an embedding of the network starts from.
    """

    labels: np.ndarray
    subject: np.ndarray
    voxel: np.ndarray

    def start(self, tables: Mapping[str, np.ndarray]) -> np.ndarray:
        """Take each nearest voxel's row of its subject's table (n_voxels, d): (n_new, d)."""
        out = np.empty((len(self.voxel), next(iter(tables.values())).shape[1]), np.float32)
        for name in np.unique(self.subject):
            rows = self.subject == name
            out[rows] = tables[str(name)][self.voxel[rows]]
        return out


def assign_nearest(new: np.ndarray, reference: Mapping[str, np.ndarray], clusters: Clusters) -> Nearest:
    """Give a new subject's voxels the clusters of their nearest known voxels.

    Parameters
    ----------
    new : array of shape (n_voxels, dim)
        Embeddings of the new subject, by the encoder that gave ``reference``.
    reference : mapping of str to array of shape (n_voxels, dim)
        Of the subjects that ``clusters`` holds.
    clusters : Clusters
    """
    names = [name for name in reference if name in clusters.labels]
    if not names:
        raise InputError(
            f"no subject has both embeddings ({', '.join(reference)}) and clusters "
            f"({', '.join(clusters.labels)}); give those of the same subjects"
        )
    if new.shape[1] != (width := reference[names[0]].shape[1]):
        raise InputError(
            f"embeddings of the new subject are {new.shape[1]} long, those of known subjects {width}; "
            "embed it with the encoder of the known ones"
        )
    match = nearest_voxels(new, np.concatenate([reference[name] for name in names]))
    sizes = [len(reference[name]) for name in names]
    labels = np.concatenate([clusters.labels[name] for name in names])
    owner, number = np.repeat(names, sizes), np.concatenate([np.arange(size) for size in sizes])
    return Nearest(labels[match], owner[match], number[match])
