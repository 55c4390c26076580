"""Measure a zoo model on held-out pictures and write the numbers into its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from brainit import metrics
from lab.decoder import Progress, SamplerSettings, draw_noise, sample
from lab.metrics.distances import pooled_features, set_distance
from lab.metrics.efficientnet import load_efficientnet
from lab.zoo import DENOISERS, load, null_tokens
from lab.zoo.data import Pictures, held_out

KINDS = ("natural", "digits", "patterns")


def evaluate(
    name: str,
    data: Path,
    *,
    n: int = 1000,
    device: str = "cpu",
    seed: int = 0,
    progress: Progress = lambda done, total, what: None,
) -> dict[str, Any]:
    """Return measured qualities of a model, flat, each for up to ``n`` held-out pictures a kind."""
    sets = {kind: _first(held_out(data, kind), n, device) for kind in KINDS}
    if name == "autoencoder-64":
        return _round_trip(load(name, device), sets)
    if name == "encoder-64":
        return _encoder(load(name, device), sets)
    if name == "structure-64":
        return _round_trip(load(name, device), sets) | _structure_noise(load(name, device), sets["natural"])
    return _denoiser(name, sets, device, seed, progress)


def evaluate_into_card(name: str, data: Path, **options: Any) -> dict[str, Any]:
    """Measure a model and keep the result in ``cards/NAME.json``."""
    from lab.zoo.train import merge_card

    quality = evaluate(name, data, **options)
    merge_card(name, {"quality": quality, "measured_by": f"brainlab zoo evaluate {name}"})
    return quality


def _first(pictures: Pictures, n: int, device: str) -> Pictures:
    return Pictures(pictures.images[:n], pictures.labels[:n]).to(device)


def _array(images: torch.Tensor) -> np.ndarray:
    return images.float().cpu().permute(0, 2, 3, 1).numpy()


def _mapped(function, images: torch.Tensor, batch: int = 256) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([function(x) for x in images.split(batch)])


def _floats(pictures: Pictures) -> torch.Tensor:
    return pictures.images.float() / 255


def _round_trip(model: torch.nn.Module, sets: dict[str, Pictures]) -> dict[str, float]:
    out = {}
    for kind, pictures in sets.items():
        truth = _floats(pictures)
        made = _array(_mapped(model, truth).mul(255).round() / 255)
        out[f"{kind}.psnr_db"] = round(float(metrics.psnr(made, _array(truth), cap=60).mean()), 2)
        out[f"{kind}.pixcorr"] = round(float(metrics.pixcorr(made, _array(truth)).mean()), 4)
    return out


def _structure_noise(model: torch.nn.Module, pictures: Pictures) -> dict[str, float]:
    """PixCorr of the inverse when noise as large as the features' own spread is added."""
    truth = _floats(pictures)
    g = torch.Generator(device=truth.device).manual_seed(0)

    def noisy(x: torch.Tensor) -> torch.Tensor:
        return model.invert([m + torch.randn(m.shape, generator=g, device=m.device) for m in model.features(x)])

    return {"natural.pixcorr_at_noise_1": round(float(metrics.pixcorr(_array(_mapped(noisy, truth)), _array(truth)).mean()), 4)}


def _encoder(model: torch.nn.Module, sets: dict[str, Pictures]) -> dict[str, float]:
    out = {}
    for kind, pictures in sets.items():
        tokens = _mapped(model, _floats(pictures))
        guess = model.classify(tokens).argmax(1)
        out[f"{kind}.top1"] = round(float((guess == pictures.labels).float().mean()), 4)
        if kind == "natural":
            mirrored = _mapped(model, _floats(pictures).flip(-1))
            a, b = (F.normalize(t.flatten(1), dim=1) for t in (tokens[:, 0], mirrored[:, 0]))
            hit = ((a @ b.T).argmax(1) == torch.arange(len(a), device=a.device)).float().mean()
            out["natural.mirror_retrieval_top1"] = round(float(hit), 4)
            out["natural.n"] = len(pictures)
    return out


def _denoiser(name: str, sets: dict[str, Pictures], device: str, seed: int, progress: Progress) -> dict[str, Any]:
    autoencoder, encoder, denoiser = load("autoencoder-64", device), load("encoder-64", device), load(name, device)
    network, null = load_efficientnet(device), null_tokens(name)
    settings = SamplerSettings(steps=20, guidance=2.0, strength=1.0, batch=256)
    out: dict[str, Any] = {"sampler": "Euler, 20 steps, guidance 2, tokens alone"}
    for kind, pictures in sets.items():
        truth = _floats(pictures)
        tokens, latents = _mapped(encoder, truth), _mapped(autoencoder.encode, truth)
        out[f"{kind}.velocity_mse"] = round(_velocity_loss(denoiser, latents, tokens, seed), 4)

        def draw(key: int, tokens: torch.Tensor = tokens) -> torch.Tensor:
            noise = draw_noise(len(tokens), key)
            made = sample(denoiser, tokens, null, noise, settings, progress=progress).to(device)
            return _mapped(autoencoder.decode, made)

        made = draw(seed)
        out[f"{kind}.n"] = len(made)
        out[f"{kind}.pixcorr"] = round(float(metrics.pixcorr(_array(made), _array(truth)).mean()), 4)
        head = [pooled_features(network, x, "head") for x in (made, truth)]
        out[f"{kind}.two_way(EfficientNet-Lite0, head)"] = round(float(metrics.two_way(*head).mean()), 5)
        if kind == "natural":
            other = draw(seed + 1)
            maps = [pooled_features(network, x, "112") for x in (made, truth, other)]
            for distance in ("FD", "KID"):
                found = set_distance(maps[0], maps[1], kind=distance, layer="112", seed=seed)
                null_between = set_distance(maps[0], maps[2], kind=distance, layer="112", seed=seed)
                out[f"natural.{found.name} to data"] = float(f"{found.value:.4g}")
                out[f"natural.{found.name} to own other seed"] = float(f"{null_between.value:.4g}")
    return out


@torch.no_grad()
def _velocity_loss(denoiser: torch.nn.Module, latents: torch.Tensor, tokens: torch.Tensor, seed: int) -> float:
    """Mean squared velocity error on a fixed ladder of times (0.05 ... 0.95) with fixed noise."""
    g = torch.Generator().manual_seed(seed)
    total = []
    for s in np.linspace(0.05, 0.95, 10):
        noise = torch.randn(latents.shape, generator=g).to(latents.device)
        for x0, c, n in zip(latents.split(256), tokens.split(256), noise.split(256), strict=True):
            t = torch.full((len(x0),), 1000 * s, device=x0.device)
            v = denoiser((1 - s) * x0 + s * n, timestep=t, encoder_hidden_states=c, return_dict=False)[0]
            total.append((v - (n - x0)).square().mean(dim=(1, 2, 3)))
    return float(torch.cat(total).mean())


def picture_grid(name: str, data: Path, *, n: int = 16, seed: int = 0, device: str = "cpu") -> np.ndarray:
    """Return rows of held-out pictures over what the model makes of them: float32 (rows * 64, n * 64, 3)."""
    rows = []
    for kind in KINDS:
        pictures = held_out(data, kind)
        pick = torch.linspace(0, len(pictures) - 1, n).long()
        truth = pictures.batch(pick).to(device)
        rows.append(truth)
        if name in DENOISERS:
            tokens = load("encoder-64", device)(truth).detach()
            made = sample(load(name, device), tokens, null_tokens(name), draw_noise(n, seed), SamplerSettings())
            rows.append(_mapped(load("autoencoder-64", device).decode, made.to(device)))
        else:
            made = _mapped(load(name, device), truth)
            rows.append(made if made.ndim == 4 else truth)
    return np.concatenate([np.concatenate(list(_array(r)), axis=1) for r in rows])
