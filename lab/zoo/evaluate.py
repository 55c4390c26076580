"""Measure a zoo model on held-out pictures; write the numbers and a sheet of pictures beside its card.

The sheet that ships shows only what this project made: samples, procedural patterns, and what models make of
these two. The whole sheet, with the held-out pictures themselves, is written to a folder of the user's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from brainit import metrics
from lab.errors import InputError
from lab.images import sheet, write_picture
from lab.metrics.distances import pooled_features, set_distance
from lab.metrics.efficientnet import NAME as NETWORK
from lab.metrics.efficientnet import load_efficientnet
from lab.progress import Progress, silent
from lab.zoo import DENOISERS, HOME, load, null_tokens, summary
from lab.zoo.data import Pictures, held_out
from lab.zoo.sampling import SamplerSettings, draw_noise, sample

KINDS = ("natural", "digits", "patterns")
OURS = ("samples", "patterns")
"""Kinds of picture that were made by this project, so that a sheet that ships may show them."""
PSNR_CAP = 60.0
COLUMNS = 12
SAMPLER = SamplerSettings(steps=20, guidance=2.0, strength=1.0, batch=8)  # small: caches
TWO_WAY = f"two_way({NETWORK}, head)"
TARGETS = {
    "autoencoder-64": {"natural.psnr_db": 28.0},
    "unet-64": {f"natural.{TWO_WAY}": 0.999, "natural.pixcorr": 0.70},
    "dit-64": {f"natural.{TWO_WAY}": 0.999, "natural.pixcorr": 0.70},
}
"""What the project asks of a model, at least; a card says what is reached."""


@dataclass(frozen=True)
class Found:
    """Measured qualities, and rows of pictures to show: float arrays (k, 64, 64, 3) in 0..1.

    ``rows`` are pairs of what went in and what came out; ``ours`` are those that may ship.
    """

    quality: dict[str, Any]
    rows: list[np.ndarray]
    ours: list[np.ndarray]


def evaluate(
    name: str,
    data: Path,
    *,
    n: int = 1000,
    n_simple: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    progress: Progress = silent,
) -> Found:
    """Measure a model.

    Parameters
    ----------
    n : int
        Natural pictures: the first of those held out (2,000 at most; of a denoiser 1,000, as the null of its
        set distances takes as many others).
    n_simple : int, optional
        Digits and patterns, each; default as many as natural ones. A kind with fewer gives all it has.
    seed : int
        Of the sampler's noise.

    Returns
    -------
    Found
        ``quality`` is flat: ``KIND.NAME``, with ``KIND.n``.

    Raises
    ------
    InputError
        Fewer than 2 pictures, or more than a denoiser's null leaves.
    """
    summary(name)
    few = n if n_simple is None else n_simple
    if n < 2 or few < 2:
        raise InputError(f"{min(n, few)} pictures are too few to measure a model; allowed: 2 and more")
    spare = 2 * n if name in DENOISERS else n
    natural = _first(held_out(data, "natural"), spare, device)
    if name in DENOISERS and len(natural) < spare:
        raise InputError(
            f"--n {n}: {len(natural)} natural pictures are held out, and the null of the set distances takes "
            f"half of them: give at most {len(natural) // 2}"
        )
    sets = {"natural": natural} | {kind: _first(held_out(data, kind), few, device) for kind in KINDS[1:]}
    if name in DENOISERS:
        return _denoiser(name, sets, n, device, seed, progress)
    sets |= _shipped_samples(device)
    model = load(name, device)
    if name == "encoder-64":
        return _encoder(model, sets, progress)
    found = _round_trip(model, sets, progress)
    if name == "structure-64":
        found.quality.update(_structure_noise(model, sets["natural"], seed, progress))
    return found


def evaluate_into_card(name: str, data: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Measure a model; keep the numbers in ``cards/NAME.json`` and pictures in ``cards/NAME.webp``.

    The sheet with the held-out pictures goes to ``out/NAME.webp``.
    """
    from lab.zoo.train import merge_card

    found = evaluate(name, data, **options)
    for rows, file in ((found.rows, out / f"{name}.webp"), (found.ours, HOME / "cards" / f"{name}.webp")):
        write_picture(sheet(np.concatenate(rows), COLUMNS, gap=2), file)
    said = {k: v for k, v in options.items() if k in ("n", "n_simple", "seed") and v is not None}
    flags = "".join(f" --{k.replace('_', '-')} {v}" for k, v in said.items())
    card = {"quality": found.quality, "measured_by": f"brainlab zoo evaluate {name}{flags}"}
    targets = TARGETS.get(name, {})
    if targets:
        card["targets"] = {
            k: {"target": t, "reached": found.quality[k], "met": found.quality[k] >= t}
            for k, t in targets.items()
        }
    merge_card(name, card)
    return card


def _first(pictures: Pictures, n: int, device: str) -> Pictures:
    return Pictures(pictures.images[:n], pictures.labels[:n]).to(device)


def _shipped_samples(device: str) -> dict[str, Pictures]:
    """Pictures to show, not to measure on: evenly spaced samples of those that ship."""
    from lab.zoo import stimuli

    if not stimuli.SHEET.is_file():
        return {}
    images, _ = stimuli.load()
    kept = torch.from_numpy(images[:: max(1, len(images) // 100)]).permute(0, 3, 1, 2)
    return {"samples": Pictures(kept.contiguous(), torch.zeros(len(kept), dtype=torch.long)).to(device)}


def _array(images: torch.Tensor) -> np.ndarray:
    return images.float().cpu().permute(0, 2, 3, 1).numpy()


def _floats(pictures: Pictures) -> torch.Tensor:
    return pictures.images.float() / 255


@torch.no_grad()
def _mapped(
    function: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    progress: Progress = silent,
    what: str = "",
    batch: int = 64,
) -> torch.Tensor:
    out, done = [], 0
    for x in images.split(batch):
        progress(done, len(images), what)
        out.append(function(x))
        done += len(x)
    progress(done, len(images), what)
    return torch.cat(out)


def _shown(*pictures: np.ndarray) -> list[np.ndarray]:
    """Pick the pictures to show by rule: evenly spaced over all that were measured."""
    pick = np.linspace(0, len(pictures[0]) - 1, COLUMNS).round().astype(int)
    return [p[pick] for p in pictures]


def _found(quality: dict[str, Any], rows: dict[str, list[np.ndarray]]) -> Found:
    whole = [row for pair in rows.values() for row in pair]
    return Found(quality, whole, [row for kind in OURS for row in rows.get(kind, [])])


def _mean(values: np.ndarray, digits: int = 4) -> float:
    return round(float(values.mean()), digits)


def _round_trip(model: nn.Module, sets: dict[str, Pictures], progress: Progress) -> Found:
    out: dict[str, Any] = {}
    rows: dict[str, list[np.ndarray]] = {}
    for kind, pictures in sets.items():
        images = _floats(pictures)
        made = _array(_mapped(model, images, progress, kind).mul(255).round() / 255)
        truth = _array(images)
        rows[kind] = _shown(truth, made)
        if kind not in KINDS:
            continue
        out[f"{kind}.n"] = len(truth)
        out[f"{kind}.psnr_db"] = _mean(metrics.psnr(made, truth, cap=PSNR_CAP), 2)
        out[f"{kind}.pixcorr"] = _mean(metrics.pixcorr(made, truth))
        out[f"{kind}.ssim"] = _mean(metrics.ssim(made, truth))
    return _found(out, rows)


def _structure_noise(model: nn.Module, pictures: Pictures, seed: int, progress: Progress) -> dict[str, float]:
    """PixCorr of the inverse when noise as large as the features' own spread is added."""
    images = _floats(pictures)
    g = torch.Generator(device=images.device).manual_seed(seed)

    def noisy(x: torch.Tensor) -> torch.Tensor:
        maps = model.features(x)
        return model.invert([m + torch.randn(m.shape, generator=g, device=m.device) for m in maps])

    made = _array(_mapped(noisy, images, progress, "natural, with noise"))
    return {"natural.pixcorr_at_noise_1": _mean(metrics.pixcorr(made, _array(images)))}


def _encoder(model: nn.Module, sets: dict[str, Pictures], progress: Progress) -> Found:
    """Labels, and whether the nearest global token is the mirrored picture's or one of the same class."""
    out: dict[str, Any] = {}
    rows: dict[str, list[np.ndarray]] = {}
    for kind, pictures in sets.items():
        images = _floats(pictures)
        tokens = _mapped(model, images, progress, kind)
        with torch.no_grad():
            ranked = model.classify(tokens).topk(5).indices == pictures.labels[:, None]
        unit = F.normalize(tokens[:, 0], dim=1)
        likeness = unit @ unit.T
        nearest = likeness.fill_diagonal_(-2).argmax(1)
        rows[kind] = _shown(_array(images), _array(images[nearest]))
        if kind not in KINDS:
            continue
        out[f"{kind}.n"] = len(pictures)
        out[f"{kind}.top1"] = round(float(ranked[:, 0].float().mean()), 4)
        if kind == "natural":
            out["natural.top5"] = round(float(ranked.any(1).float().mean()), 4)
            mirrored = _mapped(model, images.flip(-1), progress, "natural, mirrored")[:, 0]
            found = (unit @ F.normalize(mirrored, dim=1).T).argmax(1)
            hit = found == torch.arange(len(unit), device=unit.device)
            out["natural.mirror_retrieval_top1"] = round(float(hit.float().mean()), 4)
        same = (pictures.labels[nearest] == pictures.labels).float().mean()
        out[f"{kind}.nearest_has_same_class"] = round(float(same), 4)
    return _found(out, rows)


def _denoiser(
    name: str, sets: dict[str, Pictures], n: int, device: str, seed: int, progress: Progress
) -> Found:
    """Compare samples from tokens alone with the pictures that the tokens are of.

    The null of a set distance is what the same number of other held-out pictures is from them.
    """
    autoencoder, encoder, denoiser = (
        load("autoencoder-64", device),
        load("encoder-64", device),
        load(name, device),
    )
    denoiser = denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network, null = load_efficientnet(device), null_tokens(name)
    out: dict[str, Any] = {
        "sampler": f"Euler, {SAMPLER.steps} steps, guidance {SAMPLER.guidance:g}, from tokens alone"
    }
    rows: dict[str, list[np.ndarray]] = {}
    for kind, pictures in sets.items():
        every = _floats(pictures)
        images = every[:n] if kind == "natural" else every
        tokens, latents = _mapped(encoder, images), _mapped(autoencoder.encode, images)
        out[f"{kind}.n"] = len(images)
        out[f"{kind}.velocity_mse"] = round(_velocity_loss(denoiser, latents, tokens, seed), 4)
        noise = draw_noise(len(tokens), seed)

        def named(done: int, total: int, what: str, kind: str = kind) -> None:
            progress(done, total, f"{kind}, {what}")

        drawn = sample(denoiser, tokens, null, noise, SAMPLER, progress=named).to(device)
        made = _mapped(autoencoder.decode, drawn)
        out[f"{kind}.pixcorr"] = _mean(metrics.pixcorr(_array(made), _array(images)))
        heads = [pooled_features(network, x, "head") for x in (made, images)]
        out[f"{kind}.{TWO_WAY}"] = _mean(metrics.two_way(*heads), 5)
        rows[kind] = _shown(_array(images), _array(made))
        if kind == "natural":
            out |= _distances(network, made, images, every[n : 2 * n])
            half = len(images) // (2 * COLUMNS)  # those half-way between the ones shown
            between = slice(half, len(images) - half)
            rows["natural, more"] = _shown(_array(images[between]), _array(made[between]))
    whole = [row for pair in rows.values() for row in pair]
    ours = [pair[1] for pair in rows.values()]  # samples are ours, the pictures behind their tokens are not
    return Found(out, whole, ours)


def _distances(
    network: Any, made: torch.Tensor, images: torch.Tensor, others: torch.Tensor
) -> dict[str, float]:
    out: dict[str, float] = {}
    maps = [pooled_features(network, x, "112") for x in (made, images, others)]
    for kind in ("FD", "KID"):
        found = set_distance(maps[0], maps[1], kind=kind, other_seeds=maps[2], layer="112")  # type: ignore[arg-type]
        out[f"natural.{found.name}"] = float(f"{found.value:.4g}")
        out[f"natural.{found.name}, null: other held-out pictures"] = float(f"{found.null:.4g}")
    return out


@torch.no_grad()
def _velocity_loss(denoiser: nn.Module, latents: torch.Tensor, tokens: torch.Tensor, seed: int) -> float:
    """Mean squared velocity error on a fixed ladder of times (0.05 ... 0.95) with fixed noise."""
    g = torch.Generator().manual_seed(seed)
    total = []
    for s in np.linspace(0.05, 0.95, 10):
        noise = torch.randn(latents.shape, generator=g).to(latents.device)
        for x0, c, n in zip(latents.split(64), tokens.split(64), noise.split(64), strict=True):
            t = torch.full((len(x0),), 1000 * s, device=x0.device)
            v = denoiser((1 - s) * x0 + s * n, timestep=t, encoder_hidden_states=c, return_dict=False)[0]
            total.append((v - (n - x0)).square().mean(dim=(1, 2, 3)))
    return float(torch.cat(total).mean())
