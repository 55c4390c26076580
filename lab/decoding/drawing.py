"""Drawing pictures with the diffusion decoder, in full precision or quantized."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from lab.decoding.settings import ReconstructConfig
from lab.images import from_model
from lab.previews import step_previews, watcher
from lab.progress import Progress
from lab.zoo.sampling import SamplerSettings, draw_noise, sample

if TYPE_CHECKING:
    import quant
    from quant.api import Recipe


def settings_of(config: ReconstructConfig) -> SamplerSettings:
    """Return sampler settings; a smaller strength needs fewer of the steps."""
    strength = 1.0 if config.structure == "none" else config.strength
    return SamplerSettings(max(1, round(config.steps * strength)), config.guidance, strength)


def quantized_denoiser(
    config: ReconstructConfig,
    recipe: Recipe,
    recording: quant.Trajectories | None,
    device: str,
    progress: Progress,
    state: Path | None = None,
    native: bool = False,
    solved: dict[str, Any] | None = None,
) -> tuple[nn.Module, quant.Plan, quant.Ledger]:
    """Return the denoiser quantized by a recipe, with its plan and ledger.

    Parameters
    ----------
    recipe : str or config
        A preset's name or a method's config.
    recording : quant.Trajectories or None
        What the recipe calibrates on (`lab.decoding.recording`); None where it does not.
    state : Path, optional
        Folder in which a recipe that trains keeps its checkpoints.
    native : bool
        Run it through the kernels afterwards; the ledger says which layers do.
    solved : dict, optional
        As `quant.quantize_` takes it.

    Raises
    ------
    HardwareError, InputError
        As `quant.native_`.
    """
    import quant
    from lab import zoo

    denoiser = zoo.load(config.denoiser, device)
    planned = quant.plan(denoiser, recipe, trajectories=recording)
    ledger = quant.quantize_(
        denoiser,
        recipe,
        trajectories=recording,
        seed=config.seed,
        keep_originals=False,
        progress=progress,
        state=state,
        solved=solved,
    )
    if native:
        quant.native_(denoiser)
    return denoiser, planned, ledger


def sizes_of(denoiser: str, ledger: quant.Ledger | None) -> dict[str, Any]:
    """Return bytes and mean bits of the decoder, from the ledger; without one, of full precision."""
    if ledger is None:
        from lab import zoo

        size = 4 * sum(p.numel() for p in zoo.load(denoiser).parameters())
        return {"decoder_bytes": size, "decoder_bytes_before": size, "decoder_mean_weight_bits": 32.0}
    return {
        "decoder_bytes": int(ledger.bytes_after),
        "decoder_bytes_before": int(ledger.bytes_before),
        "decoder_mean_weight_bits": float(ledger.mean_weight_bits),
    }


def draw(
    config: ReconstructConfig,
    denoiser: nn.Module,
    tokens: np.ndarray,
    start: np.ndarray,
    number: int,
    like: tuple[int, ...],
    device: str,
    progress: Progress,
    trials: Sequence[int] | None = None,
) -> np.ndarray:
    """Return reconstructions (n, *like) for noise seed ``number``, each the mean of ``n_samples`` pictures.

    The same seed gives the same noise at every bit-width, so pictures are paired. ``trials`` says which test
    pictures these are, where it is not all: each has its noise whichever others are drawn with it.
    """
    from lab import zoo

    n, k = len(tokens), config.n_samples
    autoencoder, null = zoo.load("autoencoder-64", device), zoo.null_tokens(config.denoiser)
    repeat = torch.arange(n).repeat_interleave(k)
    places = torch.arange(n) if trials is None else torch.tensor(list(trials))
    every = draw_noise((int(places.max()) + 1) * k, config.seed * 1000 + number)
    noise = every[(places[:, None] * k + torch.arange(k)).flatten()]
    with torch.no_grad():
        origin = autoencoder.encode(torch.from_numpy(start).to(device)).cpu()
        latents = sample(
            denoiser,
            torch.from_numpy(tokens)[repeat],
            null,
            noise,
            settings_of(config),
            start=origin[repeat],
            progress=progress,
            see=step_previews(watcher(), autoencoder.decode, _stage(denoiser), settings_of(config).steps),
        )
        images = torch.cat([autoencoder.decode(z.to(device)).cpu() for z in latents.split(64)])
    pictures = from_model(images, like)
    return pictures.reshape(n, k, *like).mean(1, dtype=np.float64).astype(np.float32)


def launches_of(denoiser: nn.Module) -> str:
    """How the kernels of a quantized denoiser were launched when it last drew."""
    from quant.layers.install import state_of

    state = state_of(denoiser)
    return "" if state is None else state.ledger.launches


def _stage(denoiser: nn.Module) -> str:
    from quant.layers.install import state_of

    return "full precision" if state_of(denoiser) is None else "quantized"
