"""Streaming statistics of one tensor position; nothing of an input is kept but counts and sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from quant.errors import InputError
from quant.formats.clusters import as_matrix
from quant.formats.granularity import input_layout
from quant.observation import bins
from quant.observation.moments import Moments
from quant.observation.stats import CHANNEL_FIELDS, OUTLIER_FACTOR, SHARES, TensorStats

SURFACE = 256
"""Neighbourhoods of positions a surface has at most."""


class InputObserver:
    """Take inputs in, one timestep after the other.

    Memory, whatever the number of samples: two histograms of `bins.BINS` int32 counts for each channel and
    one of `SURFACE` floats, and 4 bytes for each timestep, channel and field of the channel table.

    Parameters
    ----------
    layer : str
    kind : "Linear" or "Conv2d"
    tensor : str
        How figures call it.
    split : int, optional
        Where a skip concatenation joins.
    """

    def __init__(self, layer: str, kind: str, tensor: str = "input", split: int | None = None) -> None:
        self.layer, self.kind, self.tensor, self.split = layer, kind, tensor, split
        self.now: Moments | None = None
        self.low = self.high = self.counts = self.channel_counts = self.surface = torch.empty(0)
        self.position_low: Tensor | None = None
        self.position_high: Tensor | None = None
        self.steps: list[dict[str, Any]] = []
        self.ragged, self.seen = False, 0

    def update(self, x: Tensor, timestep: float) -> None:
        """Take in one input.

        Raises
        ------
        InputError
            It holds NaN or infinity, or has another number of channels than before.
        """
        x = as_matrix(x, input_layout(self.kind)).float()
        low, high = x.amin((0, 1)), x.amax((0, 1))
        if not bool(torch.isfinite(low).all() & torch.isfinite(high).all()):
            raise InputError(
                f"the {self.tensor} of {self.layer!r} holds NaN or infinity at timestep {timestep:g}: the "
                "model overflows there; check its weights and the recording, or leave the layer out"
            )
        moments, counts = Moments.of(x, (0, 1)), bins.count(x, x.shape[-1])
        places = x.amin((0, 2)), x.amax((0, 2))
        if self.now is None:
            self.now, self.low, self.high, self.counts = moments, low, high, counts
            self.position_low, self.position_high = places
        else:
            self._check(x)
            self.now = Moments.merge([self.now, moments])
            self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
            self.counts += counts
            self._merge_places(*places)
        self._raise_surface(x)

    def _check(self, x: Tensor) -> None:
        if x.shape[-1] != len(self.low):
            raise InputError(
                f"layer {self.layer!r} is called with {len(self.low)} channels and with {x.shape[-1]}: leave "
                "it out"
            )

    def _merge_places(self, low: Tensor, high: Tensor) -> None:
        if self.position_low is None or self.position_high is None or len(low) != len(self.position_low):
            self.ragged = True
            return
        self.position_low = torch.minimum(self.position_low, low)
        self.position_high = torch.maximum(self.position_high, high)

    def _raise_surface(self, x: Tensor) -> None:
        top = x.abs().amax(0).T  # (channels, positions)
        if top.shape[1] > SURFACE:
            top = torch.nn.functional.adaptive_max_pool1d(top[None], SURFACE)[0]
        if not self.surface.numel():
            self.surface = top.contiguous()
        elif self.surface.shape == top.shape:
            self.surface = torch.maximum(self.surface, top)
        else:
            self.ragged = True

    def close(self, timestep: float) -> None:
        """End a timestep: quantiles and outliers are worked out, its histogram is added to the channels'."""
        if self.now is None:
            return
        now = self.now
        self.seen += int(now.n.max())
        if self.seen >= 2**31:
            raise InputError(
                f"layer {self.layer!r} has over 2^31 values a channel: observe fewer samples or timesteps"
            )
        scale = float(now.rms.median()) or float(now.over(0).rms)
        edge = bins.nearest_edge(OUTLIER_FACTOR * scale)
        found = {
            "count": now.n, "min": self.low, "max": self.high, "mean": now.mean, "var": now.var,
            "skewness": now.skewness, "kurtosis": now.kurtosis, "outliers": bins.beyond(self.counts, edge),
            "p75_abs": bins.magnitude_quantiles(
                self.counts, (0.75,), torch.maximum(-self.low, self.high)
            )[:, 0],
        }  # fmt: skip
        columns = bins.quantiles(self.counts, tuple(SHARES.values()), self.low, self.high)
        found.update(zip(SHARES, columns.T, strict=True))
        step: dict[str, Any] = {name: as_array(found[name], name) for name in CHANNEL_FIELDS}
        step["timestep"] = np.float64(timestep)
        step["histogram"] = self.counts.sum(0, dtype=torch.int64).cpu().numpy()
        step["threshold"] = np.float32(bins.magnitudes()[edge])
        for name, places in (("position_low", self.position_low), ("position_high", self.position_high)):
            step[name] = np.empty(0, np.float32) if places is None else places.cpu().numpy()
        self.steps.append(step)
        self.channel_counts = (
            self.channel_counts + self.counts if self.channel_counts.numel() else self.counts
        )
        self.now, self.position_low, self.position_high = None, None, None

    def result(self) -> TensorStats | None:
        """Everything seen; None if the layer never ran."""
        if not self.steps:
            return None
        steps = self.steps
        same = not self.ragged and len({len(step["position_low"]) for step in steps}) == 1
        empty = np.empty((len(steps), 0), np.float32)
        places = {
            name: np.stack([s[name] for s in steps]) if same else empty
            for name in ("position_low", "position_high")
        }
        return TensorStats(
            layer=self.layer, tensor=self.tensor, kind=self.kind, split=self.split,
            timesteps=np.stack([s["timestep"] for s in steps]),
            channel={name: np.stack([s[name] for s in steps]) for name in CHANNEL_FIELDS},
            histogram=np.stack([s["histogram"] for s in steps]),
            channel_histogram=self.channel_counts.cpu().numpy(),
            threshold=np.stack([s["threshold"] for s in steps]),
            surface=self.surface.cpu().numpy() if same else empty[:0], **places,
        )  # fmt: skip


def as_array(values: Tensor, field: str) -> np.ndarray:
    """Return a field of the channel table: counts as int64, everything else as float32."""
    kind = torch.int64 if field in ("count", "outliers") else torch.float32
    return values.detach().to(kind).cpu().numpy()
