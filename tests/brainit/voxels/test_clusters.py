"""Clusters: every method, controls, occupancy, matching a new subject."""

from __future__ import annotations

import numpy as np
import pytest

from brainit.errors import InputError
from brainit.voxels import clusters


def _blobs(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 3
    centres = np.array([[3, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0.0]])
    return (centres[kind] + 0.2 * rng.standard_normal((n, 4))) * rng.uniform(0.5, 4, (n, 1)), kind


def _agree(labels: np.ndarray, kind: np.ndarray) -> bool:
    return len({*zip(labels.tolist(), kind.tolist(), strict=True)}) == 3


@pytest.mark.parametrize("method", ["kmeans", "full", "diag"])
def test_functional_kinds_are_found_in_all_subjects(method: str) -> None:
    parts = {"S1": _blobs(60), "S2": _blobs(45, seed=1)}
    embeddings = {name: own[0] for name, own in parts.items()}
    if method == "kmeans":
        found = clusters.kmeans_clusters(embeddings, 3)
    else:
        found = clusters.mixture_clusters(embeddings, 3, covariance=method)
    labels = np.concatenate([found.labels[name] for name in parts])
    assert _agree(labels, np.concatenate([own[1] for own in parts.values()]))
    report = found.occupancy()
    assert (report["smallest"], report["largest"], report["empty"]) == (35, 35, 0)


def test_same_seed_same_labels() -> None:
    x = {"S1": np.random.default_rng(0).standard_normal((80, 6))}
    one, two = (clusters.mixture_clusters(x, 5, seed=3).labels["S1"] for _ in range(2))
    assert np.array_equal(one, two)


def test_profiles_group_voxels_that_respond_alike() -> None:
    rng = np.random.default_rng(0)
    kind = np.arange(40) % 2
    betas = rng.standard_normal((30, 2))[:, kind] * rng.uniform(1, 5, 40) + 0.3 * rng.standard_normal(
        (30, 40)
    )
    labels = clusters.kmeans_clusters({"S1": clusters.response_profiles(betas)}, 2).labels["S1"]
    assert len({*zip(labels.tolist(), kind.tolist(), strict=True)}) == 2


def test_fewer_voxels_than_clusters_leaves_empty_ones() -> None:
    found = clusters.kmeans_clusters({"S1": np.eye(5)}, 8)
    assert found.occupancy()["empty"] == 3


def test_roi_clusters() -> None:
    v1, v2 = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    found = clusters.roi_clusters({"S1": {"V2": v2, "V1": v1}}, {"S1": 4})
    assert found.labels["S1"].tolist() == [0, 0, 1, 2]
    with pytest.raises(InputError, match="names no regions"):
        clusters.roi_clusters({"S1": {}}, {"S1": 4})


def test_controls() -> None:
    found = clusters.random_clusters({"S1": 10, "S2": 7}, 5)
    assert np.bincount(found.labels["S1"]).tolist() == [2] * 5
    near = clusters.anatomical_clusters({"S1": np.repeat(np.eye(3) * 50, 4, axis=0)}, 3)
    assert [len(set(part.tolist())) for part in np.split(near.labels["S1"], 3)] == [1, 1, 1]
    with pytest.raises(InputError, match="positions"):
        clusters.anatomical_clusters({"S1": np.full((4, 3), np.nan)}, 2)


def test_nearest_voxels_ignores_length() -> None:
    reference = np.eye(4)
    assert clusters.nearest_voxels(np.array([[0, 9, 1, 0], [0.1, 0, 0, 0]]), reference, block=1).tolist() == [
        1,
        0,
    ]


def test_default_count() -> None:
    assert (clusters.default_n_clusters(4999), clusters.default_n_clusters(5000)) == (32, 128)


def test_in_batches_as_at_once() -> None:
    parts = {"S1": _blobs(300), "S2": _blobs(240, seed=1)}
    found = clusters.mixture_clusters({name: own[0] for name, own in parts.items()}, 3, batched=True)
    assert _agree(
        np.concatenate([found.labels[n] for n in parts]), np.concatenate([p[1] for p in parts.values()])
    )
    assert found.method == "gmm, in batches"


def test_new_subject_takes_clusters_and_start_of_its_nearest_voxels() -> None:
    reference = {"S1": np.eye(3), "S2": -np.eye(3)}
    known = clusters.Clusters({"S1": np.array([0, 1, 2]), "S2": np.array([3, 4, 5])}, 6, "made up")
    near = clusters.assign_nearest(np.array([[0, 9, 1.0], [-2, 0, 0.1]]), reference, known)
    assert near.labels.tolist() == [1, 3]
    assert (near.subject.tolist(), near.voxel.tolist()) == (["S1", "S2"], [1, 0])
    tables = {"S1": np.arange(6.0).reshape(3, 2), "S2": 10 + np.arange(6.0).reshape(3, 2)}
    assert near.start(tables).tolist() == [[2, 3], [10, 11]]
    with pytest.raises(InputError, match="2 long, those of known subjects 3"):
        clusters.assign_nearest(np.zeros((4, 2)), reference, known)
    with pytest.raises(InputError, match="both embeddings"):
        clusters.assign_nearest(np.zeros((4, 3)), {"S9": np.eye(3)}, known)
