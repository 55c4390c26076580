"""Values of a layer's channels as a histogram each, with the range that survives quantization."""

from __future__ import annotations

import numpy as np

from lab.errors import InputError
from lab.figures.plate import VERMILION, Plate, Provenance, Theme, axes, canvas, ink


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
