"""Training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lab.errors import InputError
from lab.figures.plate import BLUE, VERMILION, Plate, Provenance, Theme, axes, canvas, ink, legend, shade


def training_curve(
    epochs: Sequence[float],
    losses: Mapping[str, Sequence[Any]],
    provenance: Provenance,
    theme: Theme = "light",
) -> Plate:
    """Draw losses over epochs and the epochs whose weights were kept: those of the lowest ``validation``.

    Parameters
    ----------
    epochs : sequence of float, length k
    losses : mapping of str to sequence of float, (k,), or one for each network, (k, n)
        For example ``training`` and ``validation``; None and NaN are gaps. Several networks are a line each:
        they stop at epochs of their own, and a mean over those that are left would jump there.
    """
    series = {name: np.array(values, float) for name, values in losses.items()}  # None becomes NaN
    series = {name: v[:, None] if v.ndim == 1 else v for name, v in series.items()}
    if not len(epochs) or any(len(v) != len(epochs) for v in series.values()):
        raise InputError(f"{len(epochs)} epochs for losses of lengths {[len(v) for v in series.values()]}")
    x = np.asarray(epochs, float)
    figure = canvas(6.4, 2.7, theme)
    ax = axes(figure, theme=theme, grid="y")
    styles = [("-", shade(BLUE, theme)), ("--", VERMILION), (":", ink(theme)[1])]
    for (name, values), (line, colour) in zip(series.items(), styles * 3, strict=False):
        for k, column in enumerate(values.T):
            ax.plot(
                x,
                column,
                line,
                color=colour,
                linewidth=1.8 if values.shape[1] == 1 else 1.1,
                label=None if k else name,
                marker="." if len(values) == 1 else "",
            )
    held = series.get("validation", np.empty((0, 0)))
    kept = [float(x[np.nanargmin(column)]) for column in held.T if np.isfinite(column).any()]
    for k, epoch in enumerate(sorted(set(kept))):
        at = f"epoch {epoch:g}" if len(set(kept)) == 1 else f"epochs {epoch:g} to {max(kept):g}"
        ax.axvline(
            epoch, color=ink(theme)[1], linewidth=1, linestyle="-.", label=None if k else f"kept: {at}"
        )
    ax.set(xlabel="epoch", ylabel="loss")
    ax.xaxis.get_major_locator().set_params(integer=True)
    legend(ax, theme)
    ends = ", ".join(
        f"{name} ends at {np.mean([c[np.isfinite(c)][-1] for c in v.T if np.isfinite(c).any()]):.3g}"
        for name, v in series.items()
        if np.isfinite(v).any()
    )
    several = max(v.shape[1] for v in series.values())
    each = f" of {several} networks, each kept at the lowest of its own validation" if several > 1 else ""
    caption = f"Loss over epochs{each}; no test trial takes part. {provenance.sentence()}"
    return Plate(figure, caption, f"Line chart of losses over {len(epochs)} epochs: {ends}.")
