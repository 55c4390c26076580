"""How a tensor's values are spread: histograms with a grid's levels or by channel, ranges over timesteps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lab.errors import InputError
from lab.figures.plate import (
    BLUE,
    VERMILION,
    Plate,
    Provenance,
    Theme,
    axes,
    canvas,
    ink,
    moment,
    shade,
)


def level_histogram(
    counts: np.ndarray,
    edges: np.ndarray,
    grids: Mapping[str, np.ndarray],
    provenance: Provenance,
    tensor: str = "input",
    theme: Theme = "light",
) -> Plate:
    """Draw how often each value occurs, over the values that grids can represent.

    Parameters
    ----------
    counts : array of shape (n_bins,)
    edges : array of shape (n_bins + 1,)
        Ascending; bins may differ in width, what is drawn is a density.
    grids : mapping of str to array of shape (n_levels,)
        By name: the values it can represent, ascending, scale included. The levels of a single grid are drawn
        through the histogram too.
    tensor : str
        What is shown.
    """
    counts, edges = np.asarray(counts, float), np.asarray(edges, float)
    if counts.ndim != 1 or edges.shape != (len(counts) + 1,) or (np.diff(edges) <= 0).any():
        raise InputError(f"counts {counts.shape} need {len(counts) + 1} ascending edges, got {edges.shape}")
    if not counts.sum() or not grids or any(not len(levels) for levels in grids.values()):
        raise InputError(f"the histogram of the {tensor} or its grids are empty; nothing to draw")
    used = np.flatnonzero(counts)
    low, high = edges[used[0]], edges[used[-1] + 1]
    margin = 0.02 * (high - low)
    text = ink(theme)[0]
    figure = canvas(7.4, 2.5 + 0.24 * len(grids), theme)
    parts = figure.add_gridspec(2, 1, height_ratios=(2.2, 0.28 * len(grids) + 0.1), hspace=0.02)
    ax = axes(figure, parts[0], theme=theme)  # type: ignore[arg-type]
    rug = axes(figure, parts[1], theme=theme)  # type: ignore[arg-type]
    density = counts / counts.sum() / np.diff(edges)
    floor = density[used].min() / 2
    ax.stairs(
        np.maximum(density, floor), edges, fill=True, baseline=floor, color=shade(BLUE, theme), alpha=0.75
    )
    ax.set_yscale("log")
    ax.set(xlim=(low - margin, high + margin), ylim=(floor, density.max() * 2), ylabel="density, log")
    ax.set_xticks([])
    ax.set_title(f"{tensor} and the values a grid can represent", loc="left", fontsize=10, color=text)
    said, names = [], list(grids)
    for row, name in enumerate(names):
        levels = np.asarray(grids[name], float)
        zero, outside = _losses(counts, edges, levels)
        rug.vlines(
            levels, row - 0.36, row + 0.36, color=VERMILION, linewidth=1.0 if len(levels) <= 64 else 0.35
        )
        rug.text(
            1.01,
            row,
            f"{zero:.1%} to 0",
            transform=rug.get_yaxis_transform(),
            va="center",
            fontsize=8.5,
            color=text,
        )
        if len(grids) == 1:
            for level in levels[(levels >= low) & (levels <= high)][: 64 if len(levels) <= 64 else 0]:
                ax.axvline(level, color=VERMILION, linewidth=0.8, alpha=0.8)
        said.append(
            f"{name}: {len(levels)} levels, {zero:.1%} of the values round to 0, {outside:.2%} lie outside"
        )
    rug.set(xlim=(low - margin, high + margin), ylim=(len(names) - 0.5, -0.5), xlabel=f"{tensor} value")
    rug.set_yticks(range(len(names)), names)
    rug.spines["left"].set_visible(False)
    rug.tick_params(axis="y", length=0)
    caption = (
        f"Density of the {tensor}, and below it the levels of grids fitted to its range ({'; '.join(said)}). "
        f"{provenance.sentence()}"
    )
    alt = f"Histogram of the {tensor} from {low:.3g} to {high:.3g} over rows of ticks. {'; '.join(said)}."
    return Plate(figure, caption, alt)


def _losses(counts: np.ndarray, edges: np.ndarray, levels: np.ndarray) -> tuple[float, float]:
    """Share of values whose nearest level is 0, and of values in bins wholly beyond the levels."""
    centres = (edges[1:] + edges[:-1]) / 2
    nearest = levels[np.abs(centres[:, None] - levels[None]).argmin(1)]
    beyond = (edges[1:] <= levels[0]) | (edges[:-1] >= levels[-1])
    total = counts.sum()
    return float(counts[np.abs(nearest) < 1e-12].sum() / total), float(counts[beyond].sum() / total)


def drift_bands(
    timesteps: Sequence[float],
    layers: Mapping[str, Mapping[str, np.ndarray]],
    provenance: Provenance,
    tensor: str = "input",
    theme: Theme = "light",
) -> Plate:
    """Draw how the values of layers move over timesteps: extremes, central 98 % and median.

    Parameters
    ----------
    timesteps : sequence of float, length T
        In sampling order.
    layers : mapping of str to mapping of str to array of shape (T,)
        By layer: ``min``, ``max``, ``p1``, ``p99``, ``p50``. One to six layers.
    """
    count = len(timesteps)
    if not 1 <= len(layers) <= 6 or any(len(v) != count for bands in layers.values() for v in bands.values()):
        raise InputError(f"drift needs one to six layers with {count} values each, got {len(layers)} layers")
    text = ink(theme)[0]
    columns = min(3, len(layers))
    rows = -(-len(layers) // columns)
    figure = canvas(3.3 * columns + 0.6, 2.3 * rows + 0.5, theme)
    colour, said, x = shade(BLUE, theme), [], np.arange(count)
    for k, (name, bands) in enumerate(layers.items()):
        ax = axes(figure, rows, columns, k + 1, theme=theme, grid="y")
        b = {key: np.asarray(values, float) for key, values in bands.items()}
        ax.fill_between(x, b["min"], b["max"], color=colour, alpha=0.18, linewidth=0, label="all values")
        ax.fill_between(x, b["p1"], b["p99"], color=colour, alpha=0.4, linewidth=0, label="central 98 %")
        ax.plot(x, b["p50"], color=text, linewidth=1.2, label="median")
        top = np.maximum(-b["min"], b["max"])
        for sign in (1, -1):
            label = "one scale for all" if sign > 0 else None
            ax.axhline(sign * top.max(), color=VERMILION, linestyle="--", linewidth=1, label=label)
        ratio = float(top.max() / max(float(top.min()), 1e-6 * float(top.max()), 1e-30))
        ax.set_title(f"{shorten(name, 34)}\ndrift {ratio:.2f}x", fontsize=8.5, color=text)
        step = -(-count // 5)  # more names would touch
        ax.set_xticks(x[::step], [moment(timesteps[i]) for i in range(0, count, step)])
        if k // columns == rows - 1:
            ax.set_xlabel("timestep")
        said.append(f"{name} {ratio:.2f}x")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9, labelcolor=text
    )
    caption = (
        f"Values of the {tensor} over timesteps, noise at the left; dashed, the range that one static scale "
        f"for all timesteps must cover. Drift is the largest over the smallest timestep's largest magnitude. "
        f"{provenance.sentence()}"
    )
    return Plate(
        figure, caption, f"Bands over {count} timesteps for {len(layers)} layers; drift: {', '.join(said)}."
    )


def shorten(name: str, most: int) -> str:
    """Return a layer's name with blocks abbreviated and, if still too long, its beginning left out."""
    for long, short in (
        ("transformer_blocks", "tb"),
        ("attentions", "attn"),
        ("resnets", "res"),
        ("_blocks", ""),
    ):
        name = name.replace(long, short)
    return name if len(name) <= most else "…" + name[1 - most :]


def channel_histogram(
    counts: np.ndarray,
    edges: np.ndarray,
    provenance: Provenance,
    tensor: str = "input",
    clip: tuple[float, float] | None = None,
    theme: Theme = "light",
) -> Plate:
    """Draw one column a channel: how often each value occurs, on a logarithmic colour scale.

    Parameters
    ----------
    counts : array of shape (n_bins, n_channels)
        How many values of a channel fell into a bin.
    edges : array of shape (n_bins + 1,)
        Bin edges, ascending.
    tensor : str
        Which tensor this is: the one that is quantized, for example "input after smoothing", or "weight".
    clip : (low, high), optional
        Smallest and largest value that the format can represent; what lies outside is clipped, and counted.
    """
    counts, edges = np.asarray(counts, float), np.asarray(edges, float)
    if counts.ndim != 2 or edges.shape != (counts.shape[0] + 1,) or (np.diff(edges) <= 0).any():
        raise InputError(
            f"counts {counts.shape} need {counts.shape[0] + 1} ascending edges, got {edges.shape}"
        )
    share = counts / np.maximum(counts.sum(0, keepdims=True), 1)
    order = np.argsort(-_extent(counts, edges), kind="stable")
    text, quiet, *_ = ink(theme)
    figure = canvas(7.4, 3.0, theme)
    ax = axes(figure, theme=theme)
    shown = np.ma.masked_equal(share[:, order], 0)
    mesh = ax.pcolormesh(
        np.arange(counts.shape[1] + 1),
        edges,
        np.ma.log10(shown),
        cmap="cividis",
        rasterized=True,
        shading="flat",
    )
    bar = figure.colorbar(mesh, ax=ax, pad=0.01)
    bar.set_label("share of values, log10", color=text, fontsize=9)
    bar.ax.tick_params(colors=quiet, labelcolor=text, labelsize=8)
    bar.outline.set_visible(False)
    ax.set(xlabel="channel, widest first", ylabel=f"{tensor} value")
    outside = ""
    if clip is not None:
        centres = (edges[1:] + edges[:-1]) / 2
        lost = counts[(centres < clip[0]) | (centres > clip[1])].sum() / max(counts.sum(), 1)
        outside = (
            f" {lost:.2%} of the values lie outside the clip range {clip[0]:.3g} to {clip[1]:.3g} (dashed)."
        )
        for bound in clip:
            ax.axhline(bound, color=VERMILION, linestyle="--", linewidth=1.2)
    wide = _extent(counts, edges)
    caption = f"Histogram of the {tensor}, one column a channel.{outside} {provenance.sentence()}"
    alt = (
        f"Heat map of {counts.shape[1]} channels: the widest reaches {wide.max():.3g} in magnitude, the "
        f"median channel {np.median(wide):.3g}.{outside}"
    )
    return Plate(figure, caption, alt)


def _extent(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the largest magnitude a channel reaches, as the outer edge of its outermost bin in use."""
    outer = np.maximum(np.abs(edges[1:]), np.abs(edges[:-1]))
    return np.where(counts > 0, outer[:, None], 0).max(0)
