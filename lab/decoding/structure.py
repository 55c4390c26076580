"""The structural picture that diffusion starts at: by Brain-IT, a posterior over pictures, or ridge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from brainit.structure.blend import Blend
from brainit.subject import Subject
from brainit.training.adapting import AdaptedSubject
from brainit.training.decoder import BrainDecoder
from brainit.training.targets import Targets
from brainit.voxels.ridge import fit_ridge, fit_ridge_loo
from brainit.voxels.scaling import VoxelScaler
from lab.decoding.settings import ReconstructConfig
from lab.images import from_model, to_model
from lab.progress import Progress

Decoder = BrainDecoder | AdaptedSubject
"""Trained on the data set's subjects, or the shared network adapted to one."""


def glyph_weights() -> str:
    """Where the prior over handwritten glyphs lies."""
    from lab.zoo import HOME

    return str(HOME / "weights" / "glyph-prior.safetensors")


def shrunk_tokens(found: Targets) -> np.ndarray:
    """Return tokens (n, 17, 192) as predicted, shrunk to what is known of each.

    The shipped denoisers have learned from such (`lab.zoo.train.predicted`): how far a token is shrunk tells
    them how far to trust it, so it is not brought back to the encoder's unit variance.
    """
    return found.tokens.numpy()


@torch.no_grad()
def tokens_of(pictures: np.ndarray) -> np.ndarray:
    """Return the zoo encoder's tokens (n, 17, 192) of pictures (n, 3, 64, 64)."""
    from lab import zoo

    encoder = zoo.load("encoder-64")
    return torch.cat([encoder(x) for x in torch.from_numpy(pictures).split(64)]).numpy()


def predictions(decoder: Decoder, test: Subject) -> dict[str, np.ndarray]:
    """Return Brain-IT's ``tokens`` (n, 17, 192) and structural maps ``map0`` ... for the test trials."""
    found = decoder.predict(test)
    return {"tokens": shrunk_tokens(found)} | maps_of(found)


def baselines(
    train: Subject, test: Subject, left_out: Sequence[str] = (), device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Return what ridge from voxels to pixels sees and the mean training picture: float32 (n, H, W[, 3]).

    Also ``ridge_tokens``, what ridge from voxels to the encoder's tokens says, shrunk as ridge leaves them:
    float32 (n, 17, 192). With ``left_out``, also ``ridge_left_out``: what ridge says of these training
    stimuli when the trial is left out (float16).
    """
    pictures = train.images()
    shape = pictures.shape[1:]
    scaler = VoxelScaler.fit(train.betas)
    betas, pixels = scaler.apply(train.betas), pictures.reshape(len(pictures), -1)
    out = {}
    if len(left_out):
        ridge, loo = fit_ridge_loo(betas, pixels, device=device)
        row = {str(key): i for i, key in enumerate(train.stimulus_id)}
        chosen = np.clip(loo[[row[str(key)] for key in left_out]], 0, 1)
        out["ridge_left_out"] = chosen.reshape(-1, *shape).astype(np.float16)
    else:
        ridge = fit_ridge(betas, pixels, device=device)
    seen = np.clip(ridge.predict(scaler.apply(test.betas)), 0, 1).reshape(-1, *shape)
    mean = np.broadcast_to(pictures.mean(0), seen.shape)
    goals = tokens_of(to_model(pictures).numpy())
    linear = fit_ridge(betas, goals.reshape(len(goals), -1), device=device)
    tokens = linear.predict(scaler.apply(test.betas)).reshape(-1, *goals.shape[1:]).astype(np.float32)
    return {
        "ridge": seen.astype(np.float32),
        "ridge_tokens": tokens,
        "mean_image": mean.astype(np.float32),
        "ridge_weights": ridge.weight_norms().astype(np.float32),
        **out,
    }


def again(
    config: ReconstructConfig,
    train: Subject,
    test: Subject,
    decoder: Decoder,
    device: str,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Say of other test trials what a run says of its own, in the same way.

    Returns
    -------
    tokens, start : float32 arrays of shape (n, 17, 192), (n, 3, 64, 64)
        What the diffusion decoder is given.
    ridge : float32 array of shape (n, H, W[, 3])
        What ridge from voxels to pixels sees.
    """
    predicted, simple = predictions(decoder, test), dict[str, np.ndarray]()
    if config.structure in ("blend", "ridge"):
        simple = baselines(train, test, decoder.held_out(train.name)[0].tolist(), device)
    start = structural(config, train, test, predicted, simple, decoder, progress)["start"]
    tokens = tokens_of(start) if config.tokens == "picture" else predicted["tokens"]
    if simple:
        return tokens, start, simple["ridge"]
    pictures, scaler = train.images(), VoxelScaler.fit(train.betas)
    fitted = fit_ridge(scaler.apply(train.betas), pictures.reshape(len(pictures), -1), device=device)
    seen = np.clip(fitted.predict(scaler.apply(test.betas)), 0, 1).astype(np.float32)
    return tokens, start, seen.reshape(-1, *pictures.shape[1:])


def maps_of(found: Targets) -> dict[str, np.ndarray]:
    """Name a prediction's structural maps as :func:`predictions` does."""
    return {f"map{i}": scale.numpy() for i, scale in enumerate(found.structure)}


def inverted(predicted: Mapping[str, np.ndarray]) -> torch.Tensor:
    """Return the picture (n, 3, 64, 64) that Brain-IT's structural maps describe, by the zoo's inverter."""
    from lab import zoo

    maps = [torch.from_numpy(predicted[k]) for k in sorted(k for k in predicted if k.startswith("map"))]
    structure = zoo.load("structure-64")
    with torch.no_grad():
        parts = zip(*(scale.split(64) for scale in maps), strict=True)
        return torch.cat([structure.invert(list(part)) for part in parts])


@dataclass(frozen=True)
class Blended:
    """Blended structural pictures.

    Parameters
    ----------
    picture : float32 array of shape (n_test, H, W[, 3])
    stimuli : str array of shape (n_held,)
        Training stimuli that were left out.
    truth, left_out : float32 arrays of shape (n_held, H, W[, 3])
        Those pictures, and the blend's for them.
    weights : dict of str to (float, float)
        Of ridge and of Brain-IT, by band.
    """

    picture: np.ndarray
    stimuli: np.ndarray
    truth: np.ndarray
    left_out: np.ndarray
    weights: dict[str, tuple[float, float]]


def blended(
    decoder: Decoder,
    train: Subject,
    predicted: Mapping[str, np.ndarray],
    simple: Mapping[str, np.ndarray],
) -> Blended:
    """Weigh Brain-IT's structural picture and ridge's on left-out training trials; then blend at test."""
    stimuli, held = decoder.held_out(train.name)
    row = {str(key): i for i, key in enumerate(train.stimulus_id)}
    truth = train.images()[[row[str(key)] for key in stimuli]]
    mean, like = simple["mean_image"][0], truth.shape[1:]
    ours, theirs = from_model(inverted(maps_of(held)), like), simple["ridge_left_out"].astype(np.float32)
    fitted = Blend.fit(truth, ours, theirs, mean)
    return Blended(
        fitted(from_model(inverted(predicted), like), simple["ridge"]),
        stimuli,
        truth,
        fitted(ours, theirs),
        fitted.weights,
    )


def structural(
    config: ReconstructConfig,
    train: Subject,
    test: Subject,
    predicted: dict[str, np.ndarray],
    simple: Mapping[str, np.ndarray],
    decoder: Decoder,
    progress: Progress,
) -> dict[str, Any]:
    """Return the structural pictures, those of some left-out training trials, and notes on where from.

    Returns
    -------
    dict
        ``start`` (n, 3, 64, 64); ``left_out_start`` (k, 3, 64, 64) and ``left_out_tokens`` (k, 17, 192), of
        the same k trials, at most ``config.left_out``; ``made_by``; numbers under ``posterior``.
    """
    stimuli, held = decoder.held_out(train.name)
    chosen = np.sort(np.random.default_rng(config.seed).permutation(len(stimuli))[: config.left_out])
    few = {"left_out_tokens": shrunk_tokens(held)[chosen]}
    maps = {name: values[chosen] for name, values in maps_of(held).items()}
    if config.structure in ("brainit", "none"):
        few["left_out_start"] = inverted(maps).numpy()
        return {"start": inverted(predicted).numpy(), **few, "made_by": "Brain-IT's structural branch"}
    if config.structure == "ridge":
        few["left_out_start"] = to_model(simple["ridge_left_out"][chosen].astype(np.float32)).numpy()
        return {"start": to_model(simple["ridge"]).numpy(), **few, "made_by": "ridge from voxels to pixels"}
    if config.structure == "blend":
        blend = blended(decoder, train, predicted, simple)
        few["left_out_start"] = to_model(blend.left_out[chosen]).numpy()
        return {
            "start": to_model(blend.picture).numpy(),
            **few,
            "made_by": "Brain-IT's structural branch and ridge, weighed on left-out training trials",
            "posterior": {
                f"{arm}_weight.{band}": w
                for band, pair in blend.weights.items()
                for arm, w in zip(("ridge", "brainit"), pair, strict=True)
            },
        }
    from brainit.structure import fit_posterior

    fitted = fit_posterior(train.betas, train.images(), glyph_weights(), seed=config.seed, progress=progress)
    decoded = fitted.decode(test.betas)
    row = {str(key): i for i, key in enumerate(train.stimulus_id)}
    unseen = fitted.held_out().picture[[row[str(key)] for key in stimuli[chosen]]]
    by = "posterior under the glyph prior" if fitted.applies else "ridge (the glyph prior does not fit)"
    return {
        "start": to_model(decoded.picture).numpy(),
        **few,
        "left_out_start": to_model(unseen).numpy(),
        "made_by": by,
        "posterior": {
            "applies": bool(fitted.applies),
            "posterior_mse": float(fitted.posterior_mse),
            "ridge_mse": float(fitted.ridge_mse),
            "effective_candidates": [round(float(e), 1) for e in decoded.effective],
        },
    }
