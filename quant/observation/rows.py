"""Tables of an observation: one row a layer, one a layer and timestep; what they can be sorted by."""

from __future__ import annotations

from typing import Any

import numpy as np

from quant.observation import bins
from quant.observation.moments import Moments
from quant.observation.stats import TensorStats, WeightStats

STATISTICS = {
    "absmax": "largest magnitude of the input",
    "rms": "root mean square of the input (LRQ-DiT's J)",
    "std": "standard deviation of the input",
    "kurtosis": "kurtosis of the input over everything (3: Gaussian)",
    "outliers": "number of outlier values (see the rule)",
    "outlier_share": "share of outlier values",
    "outlier_channels": "number of outlier channels (see the rule)",
    "salient_channels": "number of salient channels: large for most tokens and samples (see the rule)",
    "mild_max": "largest magnitude outside the salient channels",
    "channel_ratio": "largest over median channel, of the largest magnitudes",
    "position_ratio": "largest over median token or pixel, of the largest magnitudes",
    "spread_channel": "DGQ's D over channels, mean over timesteps",
    "spread_position": "DGQ's D over tokens or pixels, mean over timesteps",
    "drift": "largest over smallest timestep, of the largest magnitudes: what one static scale must cover",
    "mean_drift": "range of the mean over timesteps, in standard deviations",
    "skip_ratio": "wider over narrower half of a skip concatenation, of the largest magnitudes",
    "weight_absmax": "largest magnitude of the weight",
    "weight_kurtosis": "kurtosis of the weight",
    "weight_outlier_share": "share of outlier values of the weight",
    "weight_channel_ratio": "largest over median output channel of the weight, of the largest magnitudes",
}
"""Columns of the layer table that it can be sorted by, largest first."""


def layer_row(stats: TensorStats, weight: WeightStats | None) -> dict[str, Any]:
    """Describe a tensor over all timesteps; None where a statistic does not exist."""
    every = Moments.from_fields(stats.channel).over(0).over(0)
    by_time, by_channel = stats.absmax.max(1), stats.absmax.max(0)
    salient = stats.salient()
    rest = np.delete(by_channel, salient)
    spread = stats.spreads().mean(0)
    outliers, count = int(stats.channel["outliers"].sum()), int(stats.channel["count"].sum())
    means = Moments.from_fields(stats.channel).over(1).mean.numpy()
    std = float(every.var.sqrt())
    places = np.maximum(-stats.position_low, stats.position_high)
    halves = stats.halves()
    row = {
        "layer": stats.layer, "tensor": stats.tensor, "kind": stats.kind, "channels": stats.channels,
        "positions": places.shape[1] or None, "values": count,
        "min": float(stats.channel["min"].min()), "max": float(stats.channel["max"].max()),
        "absmax": float(by_time.max()), "mean": float(every.mean), "std": std, "rms": float(every.rms),
        "kurtosis": float(every.kurtosis), "outliers": outliers, "outlier_share": outliers / count,
        "outlier_channels": len(stats.outlier_channels()), "salient_channels": len(salient),
        "mild_max": float(rest.max()) if len(rest) else 0.0, "channel_ratio": ratio(by_channel),
        "position_ratio": ratio(places.max(0)) if places.shape[1] > 1 else None,
        "spread_channel": float(spread[0]),
        "spread_position": float(spread[1]) if places.shape[1] else None,
        "axis": _axis(stats), "drift": _over(by_time.max(), by_time.min()),
        "mean_drift": float(np.ptp(means)) / std if std > 0 else 0.0, "split": stats.split,
        "skip_ratio": None if halves is None else _half_ratio(halves),
    }  # fmt: skip
    return {**row, **_weight(weight)}


def step_rows(stats: TensorStats) -> list[dict[str, Any]]:
    """Describe a tensor at each timestep."""
    moments, spreads = Moments.from_fields(stats.channel).over(1), stats.spreads()
    low, high = stats.channel["min"].min(1), stats.channel["max"].max(1)
    import torch

    shares = (0.001, 0.01, 0.5, 0.99, 0.999)
    inner = bins.quantiles(
        torch.from_numpy(stats.histogram), shares, torch.from_numpy(low), torch.from_numpy(high)
    ).numpy()
    rows = []
    for t, timestep in enumerate(stats.timesteps):
        rows.append({
            "layer": stats.layer, "tensor": stats.tensor, "timestep": float(timestep),
            "min": float(low[t]), "max": float(high[t]), "mean": float(moments.mean[t]),
            "std": float(moments.var[t].sqrt()), "rms": float(moments.rms[t]),
            "kurtosis": float(moments.kurtosis[t]),
            **dict(zip(("p0.1", "p1", "p50", "p99", "p99.9"), map(float, inner[t]), strict=True)),
            "threshold": float(stats.threshold[t]), "outliers": int(stats.channel["outliers"][t].sum()),
            "spread_channel": float(spreads[t, 0]), "spread_position": float(spreads[t, 1]),
        })  # fmt: skip
    return rows


def ratio(largest: np.ndarray) -> float:
    """Largest over median entry; 1 for all zeros."""
    return _over(float(largest.max()), float(np.median(largest)))


def _over(top: float, bottom: float) -> float:
    """Quotient with a floor that keeps tables finite (a dead channel or timestep is not infinitely quiet)."""
    return float(top / max(bottom, 1e-6 * top)) if top > 0 else 1.0


def _axis(stats: TensorStats) -> str | None:
    """Axis whose spread is larger at most timesteps."""
    if not stats.position_low.shape[1]:
        return None
    spreads = stats.spreads()
    return "position" if (spreads[:, 1] > spreads[:, 0]).mean() > 0.5 else "channel"


def _half_ratio(halves: dict[str, dict[str, np.ndarray]]) -> float:
    tops = [float(np.maximum(-half["min"], half["max"]).max()) for half in halves.values()]
    return _over(max(tops), min(tops))


def _weight(weight: WeightStats | None) -> dict[str, float | None]:
    if weight is None:
        return dict.fromkeys(name for name in STATISTICS if name.startswith("weight_"))
    every = Moments.from_fields(weight.output).over(0)
    largest = np.maximum(-weight.output["min"], weight.output["max"])
    return {
        "weight_absmax": float(largest.max()), "weight_kurtosis": float(every.kurtosis),
        "weight_outlier_share": float(weight.output["outliers"].sum() / weight.output["count"].sum()),
        "weight_channel_ratio": ratio(largest),
    }  # fmt: skip
