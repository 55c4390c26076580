"""What is known about one tensor position after a pass, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from quant.observation import bins

SHARES = {"p0.1": 0.001, "p1": 0.01, "p50": 0.5, "p99": 0.99, "p99.9": 0.999}
"""Stored quantiles: column name and share of the values below."""

OUTLIER_FACTOR = 6.0
OUTLIER_RULE = (
    f"a value is an outlier if its magnitude is at least {OUTLIER_FACTOR:g} times the median over channels "
    "of the channel's rms (of the rms of everything where that median is 0), at the same timestep, rounded "
    "to the nearest histogram edge; the threshold is stored and the count is exact for it. A channel is an "
    f"outlier channel if its largest magnitude is at least {OUTLIER_FACTOR:g} times the median channel's, "
    "and salient if a quarter or more of its values pass the value threshold at half of the timesteps or "
    "more, that is, if it is large for most tokens and samples; outliers in other channels are mild ones."
)

CHANNEL_FIELDS = (
    "count", "min", "max", "mean", "var", "skewness", "kurtosis", "p75_abs", "outliers", *SHARES,
)  # fmt: skip
"""Columns of the channel table; each an array of shape (timesteps, channels) of `TensorStats.channel`."""


@dataclass
class TensorStats:
    """One layer's input, as it is or after a transform.

    Attributes
    ----------
    layer : str
    tensor : str
        "input", or "input after ..." the transform's label.
    kind : str
        "Linear" or "Conv2d".
    timesteps : array of shape (T,)
        In the order they were seen.
    channel : dict of array of shape (T, C)
        By `CHANNEL_FIELDS`.
    histogram : int64 array of shape (T, BINS)
        All channels, by timestep; edges from `quant.observation.bins.edges`.
    channel_histogram : int32 array of shape (C, BINS)
        All timesteps, by channel.
    threshold : array of shape (T,)
        Of the outlier rule.
    position_low, position_high : array of shape (T, P)
        Extremes of each token or pixel (row-major); P is 0 where it differs between calls.
    surface : array of shape (C, S)
        Largest magnitude of each channel at each position, over samples and timesteps; positions are joined
        to at most `SURFACE` neighbourhoods.
    split : int or None
        First channel of the skip's half, where the input is a skip concatenation.
    """

    layer: str
    tensor: str
    kind: str
    timesteps: np.ndarray
    channel: dict[str, np.ndarray]
    histogram: np.ndarray
    channel_histogram: np.ndarray
    threshold: np.ndarray
    position_low: np.ndarray
    position_high: np.ndarray
    surface: np.ndarray
    split: int | None = None

    @property
    def key(self) -> str:
        """Name in an observation: the layer's, with the tensor's where it is not the plain input."""
        return self.layer if self.tensor == "input" else f"{self.layer} [{self.tensor}]"

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.channel["min"].shape[1])

    @property
    def absmax(self) -> np.ndarray:
        """Largest magnitude by timestep and channel, (T, C)."""
        return np.maximum(-self.channel["min"], self.channel["max"])

    def salient(self) -> np.ndarray:
        """Return indices of the salient channels (see `OUTLIER_RULE`)."""
        high = self.channel["p75_abs"] >= self.threshold[:, None]
        return np.flatnonzero(high.mean(0) >= 0.5)

    def outlier_channels(self) -> np.ndarray:
        """Return indices of the outlier channels (see `OUTLIER_RULE`)."""
        largest = self.absmax.max(0)
        middle = np.median(largest)
        return np.flatnonzero(largest >= OUTLIER_FACTOR * middle) if middle > 0 else np.flatnonzero(largest)

    def spreads(self) -> np.ndarray:
        """DGQ's spread of ranges by timestep, over channels and over positions, (T, 2).

        ``D = (max_i high_i - min_i high_i) + (max_i low_i - min_i low_i)``; the axis with the larger one is
        the one along which groups pay.
        """
        pairs = (
            (self.channel["min"], self.channel["max"]),
            (self.position_low, self.position_high),
        )
        nothing = np.zeros_like(self.threshold)
        return np.stack([np.ptp(lo, 1) + np.ptp(hi, 1) if lo.shape[1] else nothing for lo, hi in pairs], 1)

    def halves(self) -> dict[str, dict[str, np.ndarray]] | None:
        """Range and rms by timestep of the two halves of a skip concatenation; None without one."""
        if self.split is None:
            return None
        found = {}
        for name, part in (("hidden", slice(0, self.split)), ("skip", slice(self.split, None))):
            cut = {field: self.channel[field][:, part] for field in ("min", "max", "mean", "var")}
            rms = np.sqrt((cut["var"] + cut["mean"] ** 2).mean(1))
            found[name] = {"min": cut["min"].min(1), "max": cut["max"].max(1), "rms": rms}
        return found


@dataclass
class WeightStats:
    """A layer's weight; channels by both of its axes.

    Attributes
    ----------
    layer : str
    shape : tuple of int
    output, input : dict of array of shape (N,) and (K,)
        Fields of `CHANNEL_FIELDS` by output channel, and by input channel (within its group of a grouped
        convolution).
    histogram : int64 array of shape (BINS,)
    threshold : float
        Of the outlier rule, over output channels.
    """

    layer: str
    shape: tuple[int, ...]
    output: dict[str, np.ndarray]
    input: dict[str, np.ndarray]
    histogram: np.ndarray
    threshold: float


@dataclass
class AttentionStats:
    """Probabilities of one attention module.

    Attributes
    ----------
    module : str
    kind : str
        "cross" or "self" (joint attention of text and image counts as self).
    timesteps : array of shape (T,)
    mass : array of shape (T, keys)
        Mean probability of each key, over samples, heads and queries.
    head_mass : array of shape (T, heads)
        Of the leading key, by head.
    leading, rest : int64 array of shape (T, BINS)
        Histogram of the leading key's probabilities, and of all others'.
    """

    module: str
    kind: str
    timesteps: np.ndarray
    mass: np.ndarray
    head_mass: np.ndarray
    leading: np.ndarray
    rest: np.ndarray

    def row(self, steps: slice | int = slice(None)) -> dict[str, Any]:
        """Describe some timesteps (all by default) in one row of plain numbers."""
        mass = self.mass[steps].reshape(-1, self.mass.shape[1]).mean(0)
        leading, rest = (h[steps].reshape(-1, bins.BINS).sum(0) for h in (self.leading, self.rest))
        every = leading + rest
        sink = int(mass.argmax())
        return {
            "module": self.module, "kind": self.kind, "keys": len(mass), "uniform": 1 / len(mass),
            "leading_mass": float(mass[0]), "sink": sink, "sink_mass": float(mass[sink]),
            "leading_peak_share": share_above(leading, 0.5), "peak_share": share_above(every, 0.5),
            "dust_share": 1 - share_above(every, 1 / 256), "bimodality": bimodality(every),
        }  # fmt: skip


def share_above(counts: np.ndarray, value: float) -> float:
    """Share of the values of a histogram that reach a power of two."""
    total = counts.sum()
    return float(counts[np.searchsorted(_EDGES, value * (1 - 1e-9)) :].sum() / total) if total else 0.0


def bimodality(counts: np.ndarray) -> float:
    """Sarle's coefficient ``(skewness^2 + 1) / kurtosis`` of log2 of positive values.

    5/9 for a uniform distribution, 1/3 for a Gaussian, towards 1 for two separate peaks (a long one-sided
    tail raises it as well). 0 where nothing varies.
    """
    positive = counts[bins.HALF + 1 :].astype(np.float64)
    # what underflows the histogram counts as its smallest magnitude
    positive[0] += counts[: bins.HALF + 1].sum()
    total = positive.sum()
    if not total:
        return 0.0
    share, centre = positive / total, np.log2((_EDGES[-bins.HALF - 1 : -1] + _EDGES[-bins.HALF :]) / 2)
    d = centre - (share * centre).sum()
    var, third, fourth = ((share * d**k).sum() for k in (2, 3, 4))
    return float((third**2 / var**3 + 1) / (fourth / var**2)) if var > 1e-12 else 0.0


_EDGES = bins.edges().numpy()
