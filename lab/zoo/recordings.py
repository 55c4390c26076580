"""Recordings of the zoo's denoisers: what methods calibrate on, and the conditions kept apart from it.

A recording samples the full-precision model under the tokens of shipped stimuli (`lab.zoo.stimuli`). Stimuli
are taken in one fixed random order, so whatever a recording leaves over is free for evaluation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lab import zoo
from lab.cache import cache_folder
from lab.errors import InputError
from lab.progress import Progress, silent
from lab.runs.lock import FolderLock
from lab.zoo.exact import exact_arithmetic
from lab.zoo.scheduler import PartwayFlowScheduler, RectifiedFlowScheduler, zoo_scheduler

if TYPE_CHECKING:
    import quant

_ORDER_SEED = 20


def zoo_recording(
    model: str,
    folder: Path | None = None,
    *,
    n: int = 64,
    steps: int = 20,
    guidance: float | None = None,
    seed: int = 0,
    device: Any = "cpu",
    progress: Progress = silent,
) -> quant.Trajectories:
    """Record, or reopen, full-precision sampling of a zoo denoiser on the tokens of the shipped stimuli.

    Parameters
    ----------
    model : str
        A denoiser of the zoo.
    folder : Path, optional
        Default ``recordings/MODEL-HASH`` in the cache (`lab.cache`); the hash is over settings, weights and
        stimuli. A recording that was stopped goes on.
    n : int
        Samples: half of their keys are for calibrating, 30 % for distilling, 20 % for evaluating.
    steps, guidance, seed
        Of the sampler; see `lab.zoo.sampling.SamplerSettings`. Guidance is the model's usual one if left out.

    Returns
    -------
    quant.Trajectories

    Raises
    ------
    InputError
        The model is not a denoiser of the zoo; ``n`` is out of bounds; the folder has other settings.
    MissingDataError
        There are no weights, or no stimuli.
    """
    from quant import record

    null, shared = _null(model), folder is None
    guidance = zoo.usual_guidance(model) if guidance is None else guidance
    if folder is None:
        settings = {"n": n, "steps": steps, "guidance": guidance, "seed": seed}
        folder = cache_folder("recordings", f"{model}-{fingerprint(model, settings)}")
        if (done := _finished(folder)) is not None:  # tokens made on another device differ in the last digit
            return done
    rows = order(stop=n)
    if len(rows) < n or n < 4:
        raise InputError(f"a recording of {n} samples: there are stimuli for 4 to {len(order())}")
    folder.mkdir(parents=True, exist_ok=True)
    # processes that need the same one: the first records it for all
    with FolderLock(folder, wait=progress), exact_arithmetic(str(device)):
        if shared and (done := _finished(folder)) is not None:
            return done
        return record(
            zoo.load(model, device),
            zoo_scheduler(),
            stimulus_sources(model, rows, device)[1],
            folder,
            n_steps=steps,
            guidance=guidance,
            null_condition=null,
            seed=seed,
            progress=progress,
        )


def order(start: int = 0, stop: int | None = None) -> torch.Tensor:
    """Return rows of the shipped stimuli in the one order that recordings take them: int64 (k,)."""
    from lab.zoo import stimuli

    n = len(stimuli.load()[1])
    return torch.randperm(n, generator=torch.Generator().manual_seed(_ORDER_SEED))[start:stop]


def stimulus_pictures(rows: torch.Tensor) -> torch.Tensor:
    """Return shipped stimuli as float32 pictures (k, 3, 64, 64) in 0..1."""
    from lab.zoo import stimuli

    images, _ = stimuli.load()
    return torch.from_numpy(images[rows.numpy()]).permute(0, 3, 1, 2).float().div(255).contiguous()


@torch.no_grad()
def stimulus_tokens(rows: torch.Tensor, device: Any = "cpu", batch: int = 64) -> torch.Tensor:
    """Return the encoder's tokens of shipped stimuli: float32 (k, 17, 192), on the CPU."""
    encoder = zoo.load("encoder-64", device)
    return torch.cat([encoder(x.to(device)).float().cpu() for x in stimulus_pictures(rows).split(batch)])


def stimulus_sources(
    model: str, rows: torch.Tensor, device: Any = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a denoiser's conditions are made from, and the conditions, for shipped stimuli.

    Returns
    -------
    pictures : float32 tensor of shape (k, 3, 64, 64), or clips (k, 8, 3, 64, 64)
        In 0..1, on the CPU.
    conditions : float32 tensor of shape (k, 17 or 82, 192)
        On the CPU.
    """
    if model in zoo.VIDEO:
        from lab.zoo.video.recording import stimulus_clips

        clips, tokens = stimulus_clips(rows, device)
        return clips.cpu(), tokens
    return stimulus_pictures(rows), stimulus_tokens(rows, device)


def decoder(model: str, device: str = "cpu") -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what turns a denoiser's latents into pictures (n, 3, 64, 64) or clips (n, 8, 3, 64, 64)."""
    autoencoder: Any = zoo.load("autoencoder-64", device)
    if model in zoo.VIDEO:
        from lab.zoo.video.model import decode_frames

        return partial(decode_frames, autoencoder)
    return autoencoder.decode


def _null(model: str) -> torch.Tensor:
    if model not in zoo.DENOISERS:
        raise InputError(
            f"{model!r} is not a denoiser of the zoo (those are {', '.join(zoo.DENOISERS)}); "
            "record another model with quant.record"
        )
    return zoo.null_tokens(model)


def fingerprint(model: str, settings: dict[str, Any]) -> str:
    """Short hash over settings, weights and stimuli: another of these is another recording."""
    from lab.zoo import stimuli

    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    # a clip's condition holds its first frame's latent
    names = (model, "encoder-64", *(("autoencoder-64",) if model in zoo.VIDEO else ()))
    for file in (*(zoo.weight_file(name) for name in names), stimuli.SHEET):
        digest.update(file.read_bytes() if file.is_file() else b"-")
    return digest.hexdigest()[:12]


def _finished(folder: Path) -> quant.Trajectories | None:
    import quant

    try:
        return quant.Trajectories.open(folder)
    except quant.MissingDataError:
        return None


def recorded_scheduler(store: quant.Trajectories) -> Any:
    """Return the scheduler that a recording was made with, from its class name and config.

    Raises
    ------
    InputError
        Diffusers has no scheduler of that name.
    """
    import diffusers

    name, config = store.settings["scheduler"], store.settings["scheduler_config"]
    for ours in (RectifiedFlowScheduler, PartwayFlowScheduler):
        if name == ours.__name__:
            return ours.from_config(config)
    found = getattr(diffusers, name, None)
    if found is None or not issubclass(found, diffusers.SchedulerMixin):
        raise InputError(f"the recording at {store.path} used {name}, which is not a scheduler of diffusers")
    return found.from_config(config)
