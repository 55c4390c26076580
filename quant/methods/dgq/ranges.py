"""Statistics of both axes of a layer's input, the choice of the axis, and its clusters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from quant.denoisers.inventory import InputSize, tensor_bytes
from quant.formats.clusters import CHANNEL, PADDING, POSITION, as_matrix
from quant.formats.granularity import Layout
from quant.formats.grids import Params
from quant.formats.quantizer import Quantizer


class AxisRanges:
    """Smallest and largest value of every channel and of every position, by timestep.

    Memory: two numbers for each channel and position at each timestep.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout: Layout = layout
        self.tables: dict[float, list[tuple[Tensor, Tensor]]] = {}

    def update(self, x: Tensor, timestep: float) -> None:
        """Take in a batch of inputs."""
        matrix = as_matrix(x, self.layout).float()
        found = [(matrix.amin(dims), matrix.amax(dims)) for dims in ((0, 1), (0, 2))]
        known = self.tables.get(timestep)
        if known is not None:
            found = [
                (torch.minimum(a, low), torch.maximum(b, high))
                for (a, b), (low, high) in zip(known, found, strict=True)
            ]
        self.tables[timestep] = found


def spread(low: Tensor, high: Tensor) -> float:
    """D = (max_i high_i - min_i high_i) + (max_i low_i - min_i low_i)."""
    return float((high.amax() - high.amin()) + (low.amax() - low.amin()))


def choose_axis(ranges: list[tuple[Tensor, Tensor]], axis: str) -> int:
    """CHANNEL or POSITION: the one that spreads more, or the one asked for."""
    if axis != "auto":
        return CHANNEL if axis == "channel" else POSITION
    return POSITION if spread(*ranges[POSITION]) > spread(*ranges[CHANNEL]) else CHANNEL


def cluster(low: Tensor, high: Tensor, groups: int, seed: int) -> Tensor:
    """K-means labels (n,) of the points (low_i, high_i); fewer clusters where fewer points differ.

    The points are sorted first, so the order of the indices changes labels only; labels are ordered by the
    first index that has them, so equal input gives equal bytes.
    """
    points = torch.stack([low, high], 1).double().cpu()
    distinct, inverse, counts = torch.unique(points, dim=0, return_inverse=True, return_counts=True)
    if groups == 1:
        return torch.zeros(len(low), dtype=torch.int64)
    if len(distinct) > groups:
        from sklearn.cluster import KMeans

        fitted = KMeans(groups, n_init=1, random_state=seed)
        fitted.fit(distinct.numpy(), sample_weight=counts.double().numpy())
        inverse = torch.from_numpy(fitted.labels_.astype("int64"))[inverse]
    names: dict[int, int] = {}
    return torch.tensor([names.setdefault(label, len(names)) for label in inverse.tolist()])


def table(
    ranges: AxisRanges, quantizer: Quantizer, groups: int, axis: str, seed: int, fallback: int
) -> tuple[Params, Tensor, dict[str, Any]]:
    """Make stored parameters, timesteps (T,) and what the ledger says about them.

    Parameters
    ----------
    ranges : AxisRanges
    quantizer : Quantizer
        Of the inputs; its grid turns ranges into scales and zero points.
    groups : int
    axis : {"auto", "channel", "position"}
    seed : int
    fallback : int
        Channels of a layer that calibration never reached.
    """
    tables = ranges.tables or {0.0: [(torch.zeros(fallback), torch.zeros(fallback))] * 2}
    chosen, labels, scales, zeros, spreads = [], [], [], [], []
    for timestep in sorted(tables):
        found = tables[timestep]
        which = choose_axis(found, axis)
        low, high = found[which]
        count = 1 if len(found[POSITION][0]) == 1 else groups  # vectors: one range, as the released code
        label = cluster(low, high, count, seed).to(low.device)
        lows, highs = low.new_zeros(groups), low.new_zeros(groups)
        lows.scatter_reduce_(0, label, low, "amin", include_self=False)
        highs.scatter_reduce_(0, label, high, "amax", include_self=False)
        params = quantizer.grid.fit_range(lows, highs, False, torch.float32)
        chosen.append(which)
        labels.append(label.to(torch.uint8))
        scales.append(params["scale"])
        zeros.append(params["zero_point"])
        spreads.append([spread(*found[CHANNEL]), spread(*found[POSITION])])
    # as wide as either axis may need, so that the size does not depend on which one was chosen
    sizes = {len(low) for low, _ in next(iter(tables.values()))} if axis == "auto" else set(map(len, labels))
    padded = [torch.nn.functional.pad(x, (0, max(sizes) - len(x)), value=PADDING) for x in labels]
    stored = {
        "axis": torch.tensor(chosen, dtype=torch.uint8, device=scales[0].device),
        "labels": torch.stack(padded),
        "scale": torch.stack(scales),
        "zero_point": torch.stack(zeros),
    }
    mean = torch.tensor(spreads).mean(0).tolist()
    notes = {
        "channel_share": round(chosen.count(CHANNEL) / len(chosen), 4),
        "spread_channel": round(mean[0], 5),
        "spread_position": round(mean[1], 5),
    }
    return stored, torch.tensor(sorted(tables), dtype=torch.float32, device=scales[0].device), notes


def table_bytes(channels: int, seen: InputSize, quantizer: Quantizer, groups: int, axis: str) -> int:
    """Bytes of what `table` stores, timesteps included.

    Parameters
    ----------
    channels : int
        Of the layer's input.
    seen : InputSize
    quantizer : Quantizer
        Of the inputs.
    groups : int
    axis : {"auto", "channel", "position"}
    """
    if seen.positions is None:  # never reached: one row that stands for nothing, along the channels
        rows, width = 1, channels
    else:
        rows = seen.timesteps
        width = {"channel": channels, "position": seen.positions}.get(axis, max(channels, seen.positions))
    blank = quantizer.grid.fit_range(torch.zeros(groups), torch.zeros(groups), False, torch.float32)
    return rows * (1 + width + sum(tensor_bytes(t) for t in blank.values()) + 4)
