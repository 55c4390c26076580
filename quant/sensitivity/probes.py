"""What sensitivity is measured with: the noise prediction at recorded points, or a short sampling run."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from quant.layers.install import enabled
from quant.recordings.repeat import Sampler
from quant.recordings.sampling import predict
from quant.recordings.trajectories import Trajectories

CEILING_DB = 200.0
"""What an exact output counts as, so that tables stay finite."""


class Probe(Protocol):
    """Runs the model and compares what came out with the full-precision run."""

    def describe(self) -> dict[str, Any]:
        """JSON types; a table is only continued with equal probes."""

    def run(self, model: nn.Module) -> Any:
        """Run the model as it is now."""

    def compare(self, reference: Any, output: Any) -> tuple[dict[str, float], dict[str, float]]:
        """Metrics, and noise over signal by timestep (may be empty)."""


def noise_ratio(reference: Tensor, output: Tensor) -> float:
    """``sum (y - y_q)^2 / sum y^2``, in float64."""
    signal = reference.double().square().sum().item()
    noise = (reference.double() - output.double()).square().sum().item()
    return noise / signal if signal else (0.0 if noise == 0 else math.inf)


def decibel(ratio: float) -> float:
    """Signal to noise in dB, between -200 and 200."""
    if ratio <= 0:
        return CEILING_DB
    return max(-CEILING_DB, min(CEILING_DB, -10 * math.log10(ratio))) if math.isfinite(ratio) else -CEILING_DB


def similarity(a: Tensor, b: Tensor) -> float:
    """Mean SSIM with one window over the whole picture, channel by channel.

    MixDQ uses a window of 511 on pictures of 512 pixels; the data range is that of `a`. Constants are Wang et
    al.'s 0.01 and 0.03.
    """
    a, b = a.double().flatten(2), b.double().flatten(2)
    spread = (a.amax() - a.amin()).clamp(min=1e-12)
    c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    ma, mb = a.mean(-1), b.mean(-1)
    va, vb = a.var(-1, unbiased=False), b.var(-1, unbiased=False)
    cov = ((a - ma[..., None]) * (b - mb[..., None])).mean(-1)
    value = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return float(value.mean())


class NoisePrediction:
    """Prediction at recorded points (x_t, t, c): no error of an earlier step gets in.

    Parameters
    ----------
    trajectories : Trajectories
    samples : int
        Of the subset, the first ones.
    timesteps : int
        Spread evenly over the recorded ones.
    subset : str
    """

    def __init__(
        self, trajectories: Trajectories, samples: int = 4, timesteps: int = 4, subset: str = "calibrate"
    ) -> None:
        self.store = trajectories
        self.keys = trajectories.keys(subset)[:samples]
        count = len(trajectories.timesteps)
        picked = torch.linspace(0, count - 1, min(timesteps, count)).round().long().tolist()
        self.steps: list[int] = sorted(set(picked))

    def describe(self) -> dict[str, Any]:
        """Name the points."""
        return {"kind": "noise_prediction", "keys": self.keys, "steps": self.steps}

    @torch.no_grad()
    def run(self, model: nn.Module) -> Tensor:
        """Predictions, (steps, samples, C, H, W)."""
        samples = [self.store.sample(key) for key in self.keys]
        condition = torch.stack([s["condition"] for s in samples]) if "condition" in samples[0] else None
        out = []
        for step in self.steps:
            x = torch.stack([s["x"][step] for s in samples])
            time = torch.tensor([self.store.timesteps[step]], dtype=torch.float32)
            out.append(predict(model, x, time, condition).float().cpu())
        return torch.stack(out)

    def compare(self, reference: Tensor, output: Tensor) -> tuple[dict[str, float], dict[str, float]]:
        """SQNR over everything at once, as MixDQ does, and noise over signal by timestep."""
        total = noise_ratio(reference, output)
        times = {
            f"{self.store.timesteps[step]:g}": noise_ratio(reference[i], output[i])
            for i, step in enumerate(self.steps)
        }
        return {"sqnr_db": decibel(total), "nmse": total}, times


class FinalSample:
    """A sampling run of few steps from the recorded noise: what the picture looks like (content).

    Parameters
    ----------
    sampler : Sampler
    samples : int
    steps : int
        Of the sampler; few-step models are judged as they are used.
    decode : callable, optional
        Latents to pictures; latents are compared if left out.
    subset : str
    """

    def __init__(
        self,
        sampler: Sampler,
        samples: int = 4,
        steps: int = 4,
        decode: Any = None,
        subset: str = "calibrate",
    ) -> None:
        self.sampler, self.steps, self.decode = sampler, steps, decode
        self.keys = sampler.trajectories.keys(subset)[:samples]

    def describe(self) -> dict[str, Any]:
        """Name the samples."""
        return {
            "kind": "final_sample", "keys": self.keys, "steps": self.steps, "decoded": self.decode is not None
        }  # fmt: skip

    @torch.no_grad()
    def run(self, model: nn.Module) -> Tensor:
        """Sample, and decode if there is a decoder: (n, C, H, W)."""
        final = self.sampler.run(model, self.keys, self.steps)[1]
        return final if self.decode is None else self.decode(final)

    def compare(self, reference: Tensor, output: Tensor) -> tuple[dict[str, float], dict[str, float]]:
        """Similarity of the pictures."""
        ratio = noise_ratio(reference, output)
        return {
            "ssim": similarity(reference, output),
            "final_sqnr_db": decibel(ratio),
            "final_nmse": ratio,
        }, {}


def error_growth(
    model: nn.Module, sampler: Sampler, *, samples: int = 4, subset: str = "evaluate"
) -> list[dict[str, float]]:
    """Error of a quantized model step by step along the sampler.

    Parameters
    ----------
    model : torch.nn.Module
        Quantized, with its full-precision layers kept.
    sampler : Sampler
    samples : int
    subset : str

    Returns
    -------
    list of dict
        For each step: ``step``, ``timestep``; ``local_nmse`` of the guided prediction at the full-precision
        state (no earlier error gets in), ``accumulated_nmse`` of the state that the quantized model itself
        arrived at before the step; a last row (timestep 0) for the final sample without ``local_nmse``.
    """
    keys = sampler.trajectories.keys(subset)[:samples]
    with enabled(model, False):
        reference, final = sampler.run(model, keys)
    own, own_final = sampler.run(model, keys)
    stored = [sampler.trajectories.sample(key) for key in keys]
    condition = torch.stack([s["condition"] for s in stored]) if "condition" in stored[0] else None
    rows = []
    for step, timestep in enumerate(sampler.trajectories.timesteps):
        x = torch.stack([s["x"][step] for s in stored])
        time = torch.tensor([timestep], dtype=torch.float32)
        with torch.no_grad():
            out = sampler.guided(model, x, time, condition)
            with enabled(model, False):
                exact = sampler.guided(model, x, time, condition)
        rows.append({
            "step": float(step), "timestep": float(timestep), "local_nmse": noise_ratio(exact, out),
            "accumulated_nmse": noise_ratio(reference[step], own[step]),
        })  # fmt: skip
    last = {"step": float(len(rows)), "timestep": 0.0, "accumulated_nmse": noise_ratio(final, own_final)}
    return [*rows, last]
