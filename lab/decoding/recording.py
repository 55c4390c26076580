"""Recordings of the decoder at work on predictions: what recipes calibrate on, kept by content.

The denoiser is sampled in full precision exactly as at test (scheduler, steps, strength, guidance and null
condition), for training trials that were left out of training. Nothing of a test trial takes part.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch

from lab import zoo
from lab.cache import cache_folder
from lab.decoding.conditions import Conditions
from lab.decoding.drawing import settings_of
from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.progress import Progress, silent
from lab.runs.lock import FolderLock

if TYPE_CHECKING:
    import quant

FEWEST = 4
"""Samples of which half calibrate and one is left for each other use."""
_NOISE = 997  # of draw_noise: no noise seed of a reconstruction comes near


def decoder_recording(
    config: ReconstructConfig, given: Conditions, device: str = "cpu", progress: Progress = silent
) -> quant.Trajectories:
    """Record, or reopen, the decoder's full-precision sampling for left-out training trials.

    Parameters
    ----------
    config : ReconstructConfig
        Denoiser, sampler and seed.
    given : Conditions
        Its ``left_out_tokens`` and ``left_out_start``.

    Returns
    -------
    quant.Trajectories
        Kept in the cache (`lab.cache`) under a hash of weights, tokens, null condition, starting states and
        sampler, so the next recipe, also of another run, finds it. One that was stopped goes on.

    Raises
    ------
    InputError
        There are too few left-out trials.
    """
    import quant
    from lab.zoo.sampling import draw_noise
    from lab.zoo.scheduler import PartwayFlowScheduler

    sampler = settings_of(config)
    tokens = torch.from_numpy(given.left_out_tokens)
    if len(tokens) < FEWEST:
        raise InputError(
            f"{len(tokens)} left-out training trials to calibrate on; a recipe that calibrates needs at least"
            f" {FEWEST}: raise brain.care.folds or brain.train.validation, or take a recipe that does not"
        )
    null = zoo.null_tokens(config.denoiser)
    noise = draw_noise(len(tokens), config.seed * 1000 + _NOISE)
    with torch.no_grad():
        pictures = torch.from_numpy(given.left_out_start).to(device)
        latents = zoo.load("autoencoder-64", device).encode(pictures).cpu()
    start = (1 - sampler.strength) * latents + sampler.strength * noise
    scheduler = PartwayFlowScheduler(strength=sampler.strength)
    sampling = {
        "denoiser": config.denoiser,
        "scheduler": type(scheduler).__name__,
        "steps": sampler.steps,
        "strength": sampler.strength,
        "guidance": sampler.guidance,
        "seed": config.seed,
    }
    content = _content(sampling, config.denoiser, tokens, null, start)
    folder = cache_folder("recordings") / f"{config.denoiser}-{content}"
    folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder, wait=progress):  # runs that need the same one: the first records it for all
        return quant.record(
            zoo.load(config.denoiser, device),
            scheduler,
            tokens,
            folder,
            n_steps=sampler.steps,
            start=start,
            guidance=sampler.guidance,
            null_condition=null,
            seed=config.seed,
            progress=progress,
        )


def _content(sampling: dict[str, Any], denoiser: str, *tensors: torch.Tensor) -> str:
    """Short hash over settings, weights and tensors: another of these is another recording."""
    digest = hashlib.sha256(json.dumps(sampling, sort_keys=True).encode())
    digest.update(zoo.weight_file(denoiser).read_bytes())
    for tensor in tensors:
        digest.update(tensor.float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
