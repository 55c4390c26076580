"""Measure the video denoiser on clips filmed from held-out pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brainit.metrics import tensors
from lab.errors import InputError
from lab.images import sheet, write_picture
from lab.metrics import motion
from lab.metrics.distances import pooled_features, set_distance
from lab.metrics.efficientnet import NAME as NETWORK
from lab.metrics.efficientnet import load_efficientnet
from lab.progress import Progress, silent
from lab.zoo import HOME, load, null_tokens, usual_guidance
from lab.zoo.data import held_out
from lab.zoo.sampling import SamplerSettings, draw_noise, sample
from lab.zoo.video import clips
from lab.zoo.video.model import NAME, SHAPE, decode_frames, encode_frames
from lab.zoo.video.recording import stimulus_clips
from lab.zoo.video.train import condition

SAMPLER = SamplerSettings(steps=20, guidance=usual_guidance(NAME), strength=1.0, batch=32)
MOTION_SEED = 77
MOTION = 17
"""Place of the motion's token in a condition."""
SHOWN = 12
TARGETS = {"pixcorr": 0.7, "motion.agreement": 0.5}
"""What the project asks of the model, at least; the card says what is reached."""


def evaluate(
    data: Path, *, n: int = 256, device: str = "cpu", seed: int = 0, progress: Progress = silent
) -> tuple[dict[str, Any], np.ndarray]:
    """Sample ``n`` clips from the first frame's tokens and the motion's, and compare them with the clips.

    Returns
    -------
    dict
        Flat scores. ``still`` is the first true frame repeated, ``other motion`` what the denoiser draws
        under another clip's motion token, ``autoencoder`` the clips after encoding and decoding.
    uint8 array of shape (2 k, frames, 64, 64, 3)
        Clips and samples by turns.

    Raises
    ------
    InputError
        Too few pictures to measure on.
    """
    pictures = held_out(data, "natural").to(device)
    if not 2 <= n <= len(pictures) // 2:
        raise InputError(
            f"{n} clips; measure 2 to {len(pictures) // 2}, half of the held-out pictures: the other half "
            "are the null"
        )
    autoencoder, encoder, denoiser = (
        load("autoencoder-64", device),
        load("encoder-64", device),
        load(NAME, device),
    )
    images = pictures.batch(torch.arange(2 * n, device=device))
    motions = clips.draw_motions(2 * n, MOTION_SEED)
    every = tensors.eight_bit(clips.render(images, images.roll(1, 0), motions))
    truth, others = every[:n], every[n:]
    with torch.no_grad():
        latents = encode_frames(autoencoder, truth)
        again = tensors.eight_bit(decode_frames(autoencoder, latents))
    tokens = condition(encoder, truth[:, 0], latents[:, :, 0], motions[:n].to(device))
    null = null_tokens(NAME)
    out: dict[str, Any] = {
        "n": n, "frames": clips.FRAMES,
        "sampler": f"Euler, {SAMPLER.steps} steps, guidance {SAMPLER.guidance:g}",
        "velocity_mse": round(_velocity_loss(denoiser, latents, tokens, seed), 4),
    }  # fmt: skip

    @torch.no_grad()
    def draw(given: Tensor, what: str) -> Tensor:
        drawn = sample(
            denoiser, given, null, draw_noise(n, seed, SHAPE), SAMPLER,
            progress=lambda done, total, _: progress(done, total, what),
        ).to(device)  # fmt: skip
        return tensors.eight_bit(decode_frames(autoencoder, drawn))

    samples = draw(tokens, "clips")
    swapped = tokens.clone()
    swapped[:, MOTION] = tokens[:, MOTION].roll(1, 0)
    names = {
        "": samples, "still.": motion.still(truth), "other motion.": draw(swapped, "other motion"),
        "autoencoder.": again,
    }  # fmt: skip
    for start, found in names.items():
        out |= {f"{start}{name}": value for name, value in _pairs(found, truth).items()}
    named = clips.kinds(motions[:n])
    for kind in clips.KINDS:
        rows = torch.tensor([k == kind for k in named])
        if rows.any():
            out[f"{kind}.motion.agreement"] = _mean(motion.agreement(samples[rows], truth[rows]))
    out |= _network(samples, truth, others, device)
    return out, _strips(truth, samples)


def evaluate_into_card(
    data: Path, out: Path, *, n: int = 256, seed: int = 0, **options: Any
) -> dict[str, Any]:
    """Measure; numbers go into the card, sheets of clips to ``cards`` and to ``out``.

    The sheet that ships shows only what this project drew: clips of the shipped stimuli, and what the
    denoiser makes of their conditions.
    """
    from lab.zoo.train import merge_card

    quality, pairs = evaluate(data, n=n, seed=seed, **options)
    shipped = shipped_strips(options.get("device", "cpu"), seed)
    for strips, file in ((pairs, out / f"{NAME}.webp"), (shipped, HOME / "cards" / f"{NAME}.webp")):
        write_picture(sheet(strips.reshape(-1, *strips.shape[2:]), 2 * strips.shape[1], gap=2), file, 85)
    card = {
        "quality": quality, "measured_by": f"brainlab zoo evaluate {NAME} --n {n} --seed {seed}",
        "targets": {
            k: {"target": t, "reached": quality[k], "met": quality[k] >= t} for k, t in TARGETS.items()
        },
    }  # fmt: skip
    merge_card(NAME, card)
    return card


@torch.no_grad()
def shipped_strips(device: str, seed: int) -> np.ndarray:
    """Clips of shipped stimuli and samples of their conditions by turns: uint8 (2 k, frames, 64, 64, 3)."""
    truth, tokens = stimulus_clips(torch.arange(SHOWN) * 7, device)
    autoencoder, denoiser = load("autoencoder-64", device), load(NAME, device)
    drawn = sample(denoiser, tokens, null_tokens(NAME), draw_noise(SHOWN, seed, SHAPE), SAMPLER).to(device)
    return _strips(truth, decode_frames(autoencoder, drawn))


def _strips(truth: Tensor, samples: Tensor) -> np.ndarray:
    pairs = torch.stack([truth[:SHOWN], samples[:SHOWN]], 1).flatten(0, 1)
    return pairs.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()


def _pairs(found: Tensor, truth: Tensor) -> dict[str, float]:
    frames = tensors.pixcorr(found.flatten(0, 1), truth.flatten(0, 1)).view(len(truth), -1)
    return {
        "pixcorr": _mean(frames), "pixcorr, first frame": _mean(frames[:, 0]),
        "pixcorr, last frame": _mean(frames[:, -1]),
        "motion.agreement": _mean(motion.agreement(found, truth)),
        "motion.change_error": _mean(motion.change_error(found, truth)),
        "motion.energy_ratio": _mean(motion.energy_ratio(found, truth)),
    }  # fmt: skip


def _network(samples: Tensor, truth: Tensor, others: Tensor, device: str) -> dict[str, float]:
    network = load_efficientnet(device)
    last = [pooled_features(network, x[:, -1].contiguous(), "head") for x in (samples, truth)]
    out = {
        f"last frame.two_way({NETWORK}, head)": _mean(tensors.two_way(*(torch.as_tensor(f) for f in last)))
    }
    maps = [pooled_features(network, x.flatten(0, 1), "112") for x in (samples, truth, others)]
    for kind in ("FD", "KID"):
        found = set_distance(maps[0], maps[1], kind=kind, other_seeds=maps[2], layer="112")  # type: ignore[arg-type]
        out[f"frames.{found.name}"] = float(f"{found.value:.4g}")
        out[f"frames.{found.name}, null: other held-out clips"] = float(f"{found.null:.4g}")
    return out


@torch.no_grad()
def _velocity_loss(denoiser: nn.Module, latents: Tensor, tokens: Tensor, seed: int) -> float:
    """Mean squared velocity error on a fixed ladder of times (0.05 ... 0.95) with fixed noise."""
    g = torch.Generator().manual_seed(seed)
    total = []
    for s in np.linspace(0.05, 0.95, 10):
        noise = torch.randn(latents.shape, generator=g).to(latents.device)
        for x0, c, n in zip(latents.split(32), tokens.split(32), noise.split(32), strict=True):
            t = torch.full((len(x0),), 1000 * s, device=x0.device)
            v = denoiser((1 - s) * x0 + s * n, timestep=t, encoder_hidden_states=c, return_dict=False)[0]
            total.append((v - (n - x0)).square().flatten(1).mean(1))
    return float(torch.cat(total).mean())


def _mean(values: Tensor) -> float:
    return round(float(values.double().mean()), 4)
