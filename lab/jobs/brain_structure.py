"""The structural picture that diffusion starts at: by Brain-IT, a posterior over pictures, or ridge."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from brainit.decoder import BrainDecoder
from brainit.ridge import fit_ridge
from brainit.scaling import VoxelScaler
from brainit.subject import Subject
from lab.config import ReconstructConfig
from lab.progress import Progress


def glyph_weights() -> str:
    """Where the prior over handwritten glyphs lies."""
    from lab.zoo import HOME

    return str(HOME / "weights" / "glyph-prior.safetensors")


def predictions(decoder: BrainDecoder, test: Subject) -> dict[str, np.ndarray]:
    """Return Brain-IT's ``tokens`` (n, 17, 192) and structural maps ``map0`` ... for the test trials.

    The encoder's tokens have mean 0 and variance 1; predicted ones are shrunk and are brought back to that.
    """
    found = decoder.predict(test)
    tokens = torch.nn.functional.layer_norm(found.tokens, found.tokens.shape[-1:])
    return {"tokens": tokens.numpy()} | {f"map{i}": m.numpy() for i, m in enumerate(found.structure)}


def baselines(train: Subject, test: Subject) -> dict[str, np.ndarray]:
    """Return what ridge from voxels to pixels sees and the mean training picture: float32 (n, H, W[, 3])."""
    pictures = train.images()
    shape = pictures.shape[1:]
    scaler = VoxelScaler.fit(train.betas)
    ridge = fit_ridge(scaler.apply(train.betas), pictures.reshape(len(pictures), -1))
    seen = np.clip(ridge.predict(scaler.apply(test.betas)), 0, 1).reshape(-1, *shape)
    mean = np.broadcast_to(pictures.mean(0), seen.shape)
    return {"ridge": seen.astype(np.float32), "mean_image": mean.astype(np.float32)}


def inverted(predicted: dict[str, np.ndarray]) -> torch.Tensor:
    """Return the picture (n, 3, 64, 64) that Brain-IT's structural maps describe, by the zoo's inverter."""
    from lab import zoo

    maps = [torch.from_numpy(predicted[k]) for k in sorted(k for k in predicted if k.startswith("map"))]
    with torch.no_grad():
        return zoo.load("structure-64").invert(maps)


def structural(
    config: ReconstructConfig,
    train: Subject,
    test: Subject,
    predicted: dict[str, np.ndarray],
    ridge: np.ndarray,
    progress: Progress,
) -> dict[str, Any]:
    """Return ``start`` (n, 3, 64, 64), the structural picture, and notes on how it was made."""
    from lab.images import to_model

    if config.structure in ("brainit", "none"):
        return {"start": inverted(predicted).numpy(), "made_by": "Brain-IT's structural branch"}
    if config.structure == "ridge":
        return {"start": to_model(ridge).numpy(), "made_by": "ridge from voxels to pixels"}
    from brainit.posterior import fit_posterior

    fitted = fit_posterior(train.betas, train.images(), glyph_weights(), seed=config.seed, progress=progress)
    decoded = fitted.decode(test.betas)
    made = "posterior under the glyph prior" if fitted.applies else "ridge (the glyph prior does not fit)"
    return {
        "start": to_model(decoded.picture).numpy(),
        "made_by": made,
        "posterior": {
            "applies": bool(fitted.applies),
            "posterior_mse": float(fitted.posterior_mse),
            "ridge_mse": float(fitted.ridge_mse),
            "effective_candidates": [round(float(e), 1) for e in decoded.effective],
        },
    }
