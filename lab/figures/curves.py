"""Training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lab.errors import InputError
from lab.figures.plate import BLUE, VERMILION, Plate, Provenance, Theme, axes, canvas, ink, legend, shade


def training_curve(
    epochs: Sequence[float],
    losses: Mapping[str, Sequence[float | None]],
    provenance: Provenance,
    stopped_at: float | None = None,
    theme: Theme = "light",
) -> Plate:
    """Draw losses over epochs and the epoch whose weights were kept.

    Parameters
    ----------
    epochs : sequence of float, length k
    losses : mapping of str to sequence of float, length k
        For example ``training`` and ``validation``; None and NaN are gaps.
    stopped_at : float, optional
        Epoch that was kept; by default the lowest value of ``validation``.
    """
    series = {
        name: np.array([np.nan if v is None else v for v in values], float) for name, values in losses.items()
    }
    if not len(epochs) or any(len(v) != len(epochs) for v in series.values()):
        raise InputError(f"{len(epochs)} epochs for losses of lengths {[len(v) for v in series.values()]}")
    x = np.asarray(epochs, float)
    figure = canvas(6.4, 2.7, theme)
    ax = axes(figure, theme=theme, grid="y")
    styles = [("-", shade(BLUE, theme)), ("--", VERMILION), (":", ink(theme)[1])]
    for (name, values), (line, colour) in zip(series.items(), styles * 3, strict=False):
        ax.plot(
            x,
            values,
            line,
            color=colour,
            linewidth=1.8,
            label=name,
            marker="." if len(values) == 1 else "",
        )
    held = series.get("validation")
    if stopped_at is None and held is not None and np.isfinite(held).any():
        stopped_at = float(x[np.nanargmin(held)])
    if stopped_at is not None:
        ax.axvline(
            stopped_at, color=ink(theme)[1], linewidth=1, linestyle="-.", label=f"kept: epoch {stopped_at:g}"
        )
    ax.set(xlabel="epoch", ylabel="loss")
    legend(ax, theme)
    ends = ", ".join(
        f"{name} ends at {v[np.isfinite(v)][-1]:.3g}" for name, v in series.items() if np.isfinite(v).any()
    )
    caption = f"Loss over epochs; test trials are in neither curve. {provenance.sentence()}"
    return Plate(figure, caption, f"Line chart of losses over {len(epochs)} epochs: {ends}.")
