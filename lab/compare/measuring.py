"""Take one model through the bench: everything measured about it at one seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brainit.metrics import tensors
from lab.compare.bench import NULL_OFFSET, Bench
from lab.compare.networks import DOMAIN, LITE0
from lab.errors import InputError
from lab.metrics import clips
from lab.metrics.distances import frechet_distance, kid, set_distance
from lab.metrics.manifold import precision_recall
from quant.layers.native.replays import replayed
from quant.recordings.sampling import Step, predict

SQNR_CAP = 200.0
SHOWN = 12
"""Pictures of each recipe that are kept for the grid: the first ones at seed 0, whatever they look like."""


@dataclass
class Measured:
    """One recipe at one seed; plain data.

    Parameters
    ----------
    arrays : mapping of str to float64 array of shape (n,)
        One number per picture.
    curves : mapping of str to float64 array of shape (steps,) or (steps + 1,)
    numbers : mapping of str to number, text or None
        Set distances and costs.
    pictures : uint8 array of shape (k, H, W, 3), or None
        Of clips all frames side by side.
    """

    recipe: str
    seed: int
    arrays: dict[str, np.ndarray]
    curves: dict[str, np.ndarray]
    numbers: dict[str, Any]
    pictures: np.ndarray | None = None

    def to_step(self) -> dict[str, Any]:
        """As a run's step stores it."""
        out: dict[str, Any] = {"recipe": self.recipe, "seed": self.seed, "numbers": self.numbers}
        out |= {f"array.{k}": v for k, v in self.arrays.items()}
        out |= {f"curve.{k}": v for k, v in self.curves.items()}
        return out if self.pictures is None else {**out, "pictures": self.pictures}

    @classmethod
    def from_step(cls, stored: dict[str, Any]) -> Measured:
        """Undo `to_step`."""
        arrays = {k[6:]: v for k, v in stored.items() if k.startswith("array.")}
        curves = {k[6:]: v for k, v in stored.items() if k.startswith("curve.")}
        return cls(
            stored["recipe"], stored["seed"], arrays, curves, stored["numbers"], stored.get("pictures")
        )


@dataclass
class Reference:
    """The full-precision model at one seed, kept on the device."""

    seed: int
    states: list[Tensor]
    latents: Tensor
    pictures: Tensor | None
    features: dict[str, Tensor]
    forced: list[Tensor]
    """Predictions at its own states, for each step."""
    sources: dict[str, Tensor]
    """Features of the pictures that the conditions were made from; empty without them."""


def reference(bench: Bench, seed: int) -> Reference:
    """Sample the full-precision model and keep what every recipe is compared with."""
    states: dict[int, list[Tensor]] = {}
    latents = bench.draw(
        bench.model, seed, see=lambda step: states.setdefault(step.index, []).append(step.seen)
    )
    path = [torch.cat(states[step]) for step in sorted(states)]
    pictures = bench.pictures(latents)
    _refuse_no_numbers("full precision", latents, pictures)
    features = {} if pictures is None else bench.networks.features(clips.frames_of(pictures))
    sources = {}
    if bench.sources is not None:
        seen = tensors.eight_bit(bench.sources.to(bench.device))
        sources = bench.networks.features(clips.frames_of(seen))
    made = Reference(seed, path, latents, pictures, features, [], sources)
    made.forced = _forced(bench, bench.model, made)
    return made


def _refuse_no_numbers(name: str, latents: Tensor, pictures: Tensor | None) -> None:
    """Refuse samples with NaN or infinity: they have no mean, and a table cannot be sorted by it."""
    for what, values in (("latents", latents), ("pictures", pictures)):
        bad = 0 if values is None else int((~values.flatten(1).isfinite().all(1)).sum())
        if bad:
            raise InputError(
                f"{what} of {name} are not finite in {bad} of {len(latents)} samples, so it has no scores: "
                "give it more bits, or leave out the layers that overflow"
            )


def measure(
    bench: Bench, model: nn.Module, name: str, ref: Reference, costs: dict[str, Any], seed: int | None = None
) -> Measured:
    """Measure a model against the reference.

    Parameters
    ----------
    costs : mapping
        Put into ``numbers`` as they are.
    seed : int, optional
        Of the noise, if it is another than the reference's (the null).
    """
    return _measure(bench, model, name, ref, costs, ref.seed if seed is None else seed)[0]


def _measure(
    bench: Bench, model: nn.Module, name: str, ref: Reference, costs: dict[str, Any], noise_seed: int
) -> tuple[Measured, dict[str, Tensor]]:
    gaps = torch.zeros(len(ref.states) + 1, dtype=torch.float64, device=bench.device)
    sizes = torch.zeros_like(gaps)

    def compare(step: Step) -> None:
        truth = ref.states[step.index][step.rows].double()
        gaps[step.index] += (step.seen.double() - truth).square().sum()
        sizes[step.index] += truth.square().sum()

    latents = bench.draw(model, noise_seed, see=compare)
    compare_final = ref.latents.double()
    gaps[-1] = (latents.double() - compare_final).square().sum()
    sizes[-1] = compare_final.square().sum()
    arrays = {
        "latent_sqnr_db": sqnr_db(latents, ref.latents),
        "latent_rel_l2": relative_l2(latents, ref.latents),
    }
    numbers: dict[str, Any] = dict(costs)
    features: dict[str, Tensor] = {}
    pictures = bench.pictures(latents)
    _refuse_no_numbers(name, latents, pictures)
    shown = None
    if pictures is not None and ref.pictures is not None:
        arrays |= clips.scores(bench, pictures, ref.pictures)
        features = bench.networks.features(clips.frames_of(pictures))
        if "head" in ref.sources and "head" in features:
            heads = (clips.mean_frame(f["head"], len(pictures)) for f in (features, ref.sources))
            arrays["two_way"] = tensors.two_way(*heads)
        numbers |= set_distances(features, ref.features)
        numbers |= source_distances(features, ref.sources)
        if ref.seed == 0:
            few = clips.strips(pictures[: SHOWN if pictures.ndim == 4 else SHOWN // 4])
            shown = few.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    curves = {"timestep": np.array([float(t) for t in bench.scheduler.timesteps])}
    curves["growth"] = (gaps / sizes.clamp(min=1e-30)).cpu().numpy()
    curves |= noise_error(bench, model, ref)
    numbers["noise_nmse"] = float(curves["noise_nmse"].mean())
    plain = {k: v.double().cpu().numpy() for k, v in arrays.items()}
    return Measured(name, ref.seed, plain, curves, numbers, shown), features


def noise_error(bench: Bench, model: nn.Module, ref: Reference) -> dict[str, np.ndarray]:
    """Error of the prediction at the full-precision model's own states, each timestep: MSE, and relative."""
    found = _forced(bench, model, ref)
    pairs = list(zip(found, ref.forced, strict=True))
    error = torch.stack([(q.double() - y.double()).square().mean() for q, y in pairs])
    signal = torch.stack([y.double().square().mean() for _, y in pairs])
    return {
        "noise_mse": error.cpu().numpy(),
        "noise_nmse": (error / signal.clamp(min=1e-30)).cpu().numpy(),
    }


def relative_l2(latents: Tensor, reference: Tensor) -> Tensor:
    """Norm of the difference over the norm of the reference, each sample: (n,)."""
    gap = (latents.double() - reference.double()).flatten(1).norm(dim=1)
    return gap / reference.double().flatten(1).norm(dim=1).clamp(min=1e-30)


def sqnr_db(latents: Tensor, reference: Tensor) -> Tensor:
    """Signal to quantization noise of each sample in dB, at most `SQNR_CAP`: (n,)."""
    return (-20 * relative_l2(latents, reference).clamp(min=1e-30).log10()).clamp(max=SQNR_CAP)


def set_distances(features: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, float]:
    """KID and FD of two sets of pictures in every network at hand."""
    out = {}
    for layer in (LITE0, DOMAIN):
        if layer in features and layer in other:
            a, b = features[layer].numpy(), other[layer].numpy()
            out[f"KID({layer})"], out[f"FD({layer})"] = kid(a, b), frechet_distance(a, b)
    return out


def source_distances(features: dict[str, Tensor], sources: dict[str, Tensor]) -> dict[str, float]:
    """KID, FD, precision and recall to the pictures that the conditions were made from, ``data.NAME``."""
    out = {f"data.{name}": value for name, value in set_distances(features, sources).items()}
    for layer in (LITE0, DOMAIN):
        if layer in features and layer in sources:
            found = precision_recall(features[layer].numpy(), sources[layer].numpy())
            out |= {f"data.{name}({layer})": value for name, value in found._asdict().items()}
    return out


def measure_null(bench: Bench, name: str, ref: Reference) -> Measured:
    """Measure the full-precision model with other noise against itself: what no difference looks like.

    The set distances' range under random re-dealing of the two sets is added as ``NAME.high``.
    """
    one, features = _measure(bench, bench.model, name, ref, {}, ref.seed + NULL_OFFSET)
    del one.numbers["noise_nmse"]  # the same model: its prediction has no error
    for layer in (LITE0, DOMAIN):
        if layer in features:
            a, b = features[layer].numpy(), ref.features[layer].numpy()
            for kind in ("KID", "FD"):
                found = set_distance(a, b, kind=kind, layer=layer, seed=ref.seed)  # type: ignore[arg-type]
                one.numbers[f"{kind}({layer}).high"] = found.null_high
    return one


@torch.no_grad()
def _forced(bench: Bench, model: nn.Module, ref: Reference) -> list[Tensor]:
    """Predictions at the reference's states, both guidance branches of each batch below each other."""
    k = min(bench.settings.forced, bench.settings.n)
    held = None if bench.conditions is None else bench.conditions[:k]
    null = None if bench.settings.guidance == 1.0 else bench.null

    def asked(rows: slice, state: Tensor, t: Tensor) -> Tensor:
        x, c = state[:k][rows], None if held is None else held[rows]
        if c is not None and null is not None:
            x, c = torch.cat([x, x]), torch.cat([null.expand_as(c), c])
        return predict(model, x, t, c).float()

    size = bench.settings.batch  # of drawing: a large model has no room for more
    batches = [slice(start, start + size) for start in range(0, k, size)]
    with replayed(model):
        return [
            torch.cat([asked(rows, state, t) for rows in batches])
            for t, state in zip(bench.scheduler.timesteps.to(bench.device), ref.states, strict=True)
        ]
