"""What comes before a network: the image-to-fMRI encoder and the clusters, from training trials alone.

The embeddings that are clustered are the linear encoder's, which takes seconds, and not those of the
universal encoder (`brainit.voxels.universal`), which takes minutes: on simulated cohorts clusters decide
nothing that can be measured (benchmarks/results/cohort-h200.md: random ones are not below functional ones),
so better embeddings have nothing to give. ``brainlab brain encode`` writes the universal encoder's clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from brainit.config import BrainITConfig
from brainit.errors import InputError
from brainit.subject import Subject
from brainit.training.trials import TrainingTrials
from brainit.voxels import clusters as clustering
from brainit.voxels.clusters import Clusters
from brainit.voxels.encoder import VoxelEncoder, fit_encoder


def train_encoder(
    config: BrainITConfig,
    trials: Mapping[str, TrainingTrials],
    features: np.ndarray,
    outside: np.ndarray | None,
    leave_out: set[str] | None = None,
) -> VoxelEncoder:
    """Fit the encoder to every training trial, or to those outside the groups ``leave_out``."""
    kept = {name: ~np.isin(own.group, list(leave_out or ())) for name, own in trials.items()}
    seen = {name: features[own.rows[kept[name]]] for name, own in trials.items()}
    betas = {name: own.betas[kept[name]] for name, own in trials.items()}
    n_trials = sum(len(own) for own in betas.values())
    components = config.encoder_components or min(max(n_trials // 6, 8), 64)
    return fit_encoder(seen, betas, rank=config.encoder_rank, n_components=components, external=outside)


def fold_encoder(
    config: BrainITConfig,
    trials: Mapping[str, TrainingTrials],
    valid_groups: set[str],
    features: np.ndarray,
    outside: np.ndarray | None,
) -> VoxelEncoder | None:
    """Fit the encoder without a fold's held-out trials, where the network learns from it."""
    if config.model.functional_init or (outside is not None and config.care.synthetic_share > 0):
        return train_encoder(config, trials, features, outside, valid_groups)
    return None


def _cluster_method(config: BrainITConfig, subjects: Sequence[Subject]) -> str:
    if config.clusters.method != "auto":
        return config.clusters.method
    if max(s.n_voxels for s in subjects) >= clustering.SMALL:
        return "gmm"
    return "profiles" if len(subjects) == 1 else "kmeans"


def group_voxels(
    config: BrainITConfig,
    subjects: Sequence[Subject],
    trials: Mapping[str, TrainingTrials],
    features: np.ndarray,
    outside: np.ndarray | None,
) -> Clusters:
    """Cluster the voxels of all subjects as configured."""
    method, seed = _cluster_method(config, subjects), config.train.seed
    k = config.clusters.n_clusters or clustering.default_n_clusters(max(s.n_voxels for s in subjects))
    counts = {s.name: s.n_voxels for s in subjects}
    if method == "roi":
        return clustering.roi_clusters({s.name: s.roi for s in subjects}, counts)
    if method == "anatomical":
        return clustering.anatomical_clusters({s.name: s.xyz for s in subjects}, k, seed=seed)
    if method == "random":
        return clustering.random_clusters(counts, k, seed=seed)
    if method == "profiles":
        if len(subjects) > 1:
            raise InputError(
                "clusters 'profiles' compare voxels of one subject only; use kmeans or gmm for several"
            )
        profiles = {name: clustering.response_profiles(own.betas) for name, own in trials.items()}
        return clustering.kmeans_clusters(profiles, k, seed=seed, method="profiles")
    encoder = train_encoder(config, trials, features, outside)
    if method == "kmeans":
        return clustering.kmeans_clusters(encoder.embeddings, k, seed=seed)
    covariance = "diag" if method == "gmm-diag" else "full"
    return clustering.mixture_clusters(encoder.embeddings, k, covariance=covariance, seed=seed)
