"""Statistics of a weight: exact, since it is all there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from quant.errors import InputError
from quant.observation import bins
from quant.observation.inputs import as_array
from quant.observation.moments import Moments
from quant.observation.stats import CHANNEL_FIELDS, OUTLIER_FACTOR, SHARES, WeightStats

_ENTRIES = 1 << 24  # of a block of rows that is sorted at a time


@torch.no_grad()
def weight_stats(layer: str, weight: Tensor) -> WeightStats:
    """Describe a weight (N, K) or (N, K, *kernel) by output and by input channel.

    Raises
    ------
    InputError
        It holds NaN or infinity.
    """
    rows = weight.detach().float().reshape(len(weight), -1)
    if not bool(torch.isfinite(rows).all()):
        raise InputError(
            f"the weight of {layer!r} holds NaN or infinity: the checkpoint is damaged, get it anew"
        )
    columns = weight.detach().float().transpose(0, 1).reshape(weight.shape[1], -1)
    scale = float(Moments.of(rows, (1,)).rms.median()) or float(rows.square().mean().sqrt())
    edge = bins.nearest_edge(OUTLIER_FACTOR * scale)
    threshold = float(bins.magnitudes()[edge])
    counts = sum(bins.count(part[:, None], 1)[0].long() for part in rows.reshape(-1).split(_ENTRIES))
    return WeightStats(
        layer, tuple(weight.shape), _fields(rows, threshold), _fields(columns, threshold),
        torch.as_tensor(counts).cpu().numpy(), threshold,
    )  # fmt: skip


def _fields(rows: Tensor, threshold: float) -> dict[str, np.ndarray]:
    block = max(1, _ENTRIES // rows.shape[1])
    parts = [_block(part, threshold) for part in rows.split(block)]
    return {name: np.concatenate([part[name] for part in parts]) for name in CHANNEL_FIELDS}


def _block(rows: Tensor, threshold: float) -> dict[str, np.ndarray]:
    moments, size = Moments.of(rows, (1,)), rows.shape[1]
    ordered, magnitude = rows.sort(1).values, rows.abs()
    found = {
        "count": moments.n, "min": ordered[:, 0], "max": ordered[:, -1], "mean": moments.mean,
        "var": moments.var, "skewness": moments.skewness, "kurtosis": moments.kurtosis,
        "p75_abs": magnitude.sort(1).values[:, min(size - 1, int(0.75 * size))],
        "outliers": (magnitude >= threshold).sum(1),
    }  # fmt: skip
    for name, share in SHARES.items():
        found[name] = ordered[:, min(size - 1, int(share * size))]
    return {name: as_array(found[name], name) for name in CHANNEL_FIELDS}
