"""Fit a universal voxel encoder for people, measure it beside the linear one, group their voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from brainit.subject import Subject
from brainit.voxels import clusters as grouping
from brainit.voxels.clusters import Clusters
from brainit.voxels.encoder import VoxelEncoder, fit_encoder
from brainit.voxels.universal import Backbone, Fitted, VoxelScore, VoxelTrials, dinov2, score_voxels
from brainit.voxels.universal.score import mean_correlations
from lab.images import SIDE, planes, resize
from lab.progress import Progress

N_DRAWS = 500
_BATCH = 64


def find_backbone(name: str) -> Backbone:
    """Return the zoo's encoder of this name, or DINOv2 from a folder."""
    if name == "encoder-64":
        from lab.zoo.models.backbone import zoo_backbone

        return zoo_backbone(name)
    return dinov2(Path(name))


class Shown:
    """Pictures by row, brought to a backbone's size when they are asked for; memory stays theirs.

    Parameters
    ----------
    subjects : sequence of Subject
    ids : sequence of str
        Stimulus of each row.
    side : int
        Pixels that a picture is brought to.
    """

    def __init__(self, subjects: Sequence[Subject], ids: Sequence[str], side: int) -> None:
        stimuli: dict[str, np.ndarray] = {}
        for subject in subjects:
            stimuli |= {str(key): value for key, value in (subject.stimuli or {}).items()}
        self.pictures, self.side = [stimuli[key] for key in ids], side

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, rows: torch.Tensor) -> torch.Tensor:
        """Return pictures (n, 3, side, side) in 0..1."""
        shown = (self.pictures[int(row)][None] for row in rows)
        return torch.cat([resize(planes(picture), self.side) for picture in shown])


@dataclass(frozen=True)
class Measured:
    """One subject's scores.

    Parameters
    ----------
    score : VoxelScore
        Of every voxel.
    row : dict
        Summary: ``r`` and ``r_linear`` (means over voxels) and ``r_minus_linear``, with ``_low`` and
        ``_high`` (95 % bootstrap over pictures), ``share`` of the ceiling.
    """

    score: VoxelScore
    row: dict[str, Any]


def linear_rival(
    pictures: Shown, trials: Mapping[str, VoxelTrials], progress: Progress
) -> tuple[VoxelEncoder, np.ndarray]:
    """Fit the linear encoder on the zoo encoder's tokens; return it with the tokens (n, 17 * 192)."""
    tokens = _tokens(pictures, progress)
    n = sum(len(own.rows) for own in trials.values())
    seen = {name: tokens[own.rows] for name, own in trials.items()}
    betas = {name: own.betas for name, own in trials.items()}
    return fit_encoder(seen, betas, n_components=min(max(n // 6, 8), 64)), tokens


def measure(
    subject: Subject,
    trials: VoxelTrials,
    fitted: Fitted,
    rival: VoxelEncoder,
    device: str,
    progress: Progress,
    seed: int,
) -> Measured:
    """Score both encoders on a subject's test pictures, repeats averaged."""
    test = subject.part("test").mean_over_repeats()
    ids = [str(key) for key in test.stimulus_id]
    predicted = fitted.predict(Shown([subject], ids, fitted.backbone.side), subject.name, device)
    score = score_voxels(predicted, subject, trials.scaler)
    measured = trials.scaler.apply(test.betas)
    linear = rival.predict(_tokens(Shown([subject], ids, SIDE), progress), subject.name)
    ours, theirs = (mean_correlations(p, measured, N_DRAWS, seed) for p in (predicted, linear))
    row: dict[str, Any] = {
        "subject": subject.name,
        "voxels": subject.n_voxels,
        "training pictures": len(trials.rows),
        "test pictures": score.n_pictures,
    }
    for name, draws in (("r", ours), ("r_linear", theirs), ("r_minus_linear", ours - theirs)):
        low, high = np.quantile(draws[1:], [0.025, 0.975])
        row |= {name: float(draws[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
    row["r_best_quarter"] = float(np.quantile(score.correlation, 0.75))
    row["ceiling"] = row["share"] = None
    if score.ceiling is not None and score.ceiling.sum() > 0:
        r = score.correlation.astype(np.float64)
        row["ceiling"] = float(score.ceiling.mean())
        # signed squares: voxels without signal then add nothing on average
        row["share"] = float((r * np.abs(r)).sum() / score.ceiling.sum())
    return Measured(score, row)


def group_everybody(
    subjects: Sequence[Subject],
    embeddings: Mapping[str, np.ndarray],
    n_clusters: int,
    covariance: str,
    seed: int,
    device: str,
) -> dict[str, Clusters]:
    """Return functional clusters, and anatomical and random ones as controls."""
    k = n_clusters or grouping.default_n_clusters(max(own.n_voxels for own in subjects))
    found = {
        "functional": grouping.mixture_clusters(
            embeddings, k, covariance=covariance, seed=seed, device=device
        ),
        "random": grouping.random_clusters({own.name: own.n_voxels for own in subjects}, k, seed=seed),
    }
    if all(own.has_places for own in subjects):
        places = {own.name: own.xyz for own in subjects}
        found["anatomical"] = grouping.anatomical_clusters(places, k, seed=seed)
    return found


def _tokens(pictures: Shown, progress: Progress) -> np.ndarray:
    from lab import zoo

    encoder, found = zoo.load("encoder-64"), []
    with torch.no_grad():
        for i in range(0, len(pictures), _BATCH):
            progress(i, len(pictures), "encoding pictures")
            rows = torch.arange(i, min(i + _BATCH, len(pictures)))
            found.append(encoder(pictures[rows]).flatten(1))
    return torch.cat(found).numpy()
