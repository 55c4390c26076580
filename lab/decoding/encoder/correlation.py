"""Brain correlation: whether reconstructions, seen by an encoding model, are answered as the brain did.

Each picture goes through an image-to-fMRI encoder fitted on training trials; what it predicts is correlated
across voxels with the measured response to the stimulus, repeats averaged (Scotti et al. 2024, MindEye2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from brainit.metrics.tensors import pixcorr as rows_correlation
from brainit.subject import Subject
from brainit.voxels.encoder import fit_encoder
from brainit.voxels.scaling import VoxelScaler
from lab.progress import Progress, silent

if TYPE_CHECKING:
    from lab.decoding.conditions import Step

ENCODER = "linear, from encoder-64's tokens to voxels, fitted on this subject's training trials"
_BATCH = 64


def brain_correlation(
    step: Step, subject: Subject, device: str = "cpu", progress: Progress = silent
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the scorer of one subject's test pictures.

    Parameters
    ----------
    step : callable
        ``step(name, compute)``; keeps the fitted encoder.
    subject : Subject
        With pictures; the encoder sees training trials alone.

    Returns
    -------
    callable
        Pictures (n, H, W[, 3]) in the order of ``subject.part("test").mean_over_repeats()`` to their
        correlations, float64 (n,).
    """
    fitted = step("voxel-encoder", lambda: _fit(subject, device, progress))
    test = subject.part("test").mean_over_repeats()
    scaler = VoxelScaler(fitted["scaler_mean"], fitted["scaler_scale"])
    measured = scaler.apply(test.betas)

    def scorer(pictures: np.ndarray) -> np.ndarray:
        import torch

        predicted = (_tokens(pictures, device, silent) - fitted["mean"]) @ fitted["axes"]
        found = rows_correlation(torch.from_numpy(predicted @ fitted["voxels"].T), torch.from_numpy(measured))
        return found.numpy()

    return scorer


def _fit(subject: Subject, device: str, progress: Progress) -> dict[str, np.ndarray]:
    train = subject.part("train").mean_over_repeats()
    scaler = VoxelScaler.fit(train.betas)
    features = _tokens(train.images(), device, progress)
    parts = min(max(train.n_trials // 6, 8), 64)
    name = subject.name
    encoder = fit_encoder({name: features}, {name: scaler.apply(train.betas)}, n_components=parts)
    return {
        "mean": encoder.basis.mean,
        "axes": encoder.basis.axes @ encoder.shared,
        "voxels": encoder.embeddings[name],
        "scaler_mean": scaler.mean,
        "scaler_scale": scaler.scale,
    }


def _tokens(pictures: np.ndarray, device: str, progress: Progress) -> np.ndarray:
    import torch

    from lab import zoo
    from lab.images import to_model

    encoder, found = zoo.load("encoder-64", device), []
    with torch.no_grad():
        for i in range(0, len(pictures), _BATCH):
            progress(i, len(pictures), "encoding pictures")
            found.append(encoder(to_model(pictures[i : i + _BATCH]).to(device)).flatten(1).cpu())
    return torch.cat(found).numpy()
