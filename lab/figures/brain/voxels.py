"""How well voxels are predicted, beside what could be predicted at all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lab.errors import InputError
from lab.figures.plate import BLUE, ORANGE, Plate, Provenance, Theme, axes, canvas, ink, shade


def voxel_scores(
    correlation: Mapping[str, np.ndarray],
    ceiling: Mapping[str, np.ndarray],
    provenance: Provenance,
    theme: Theme = "light",
) -> Plate:
    """Draw each subject's voxels: correlation over the highest that noise allows, or its histogram.

    Parameters
    ----------
    correlation : mapping of str to array of shape (n_voxels,)
        By subject, of predicted and measured responses.
    ceiling : mapping of str to array of shape (n_voxels,)
        Share of variance that can be explained, 0..1; subjects without one get a histogram.
    """
    if not correlation:
        raise InputError("no subject has scored voxels; nothing to draw")
    names = list(correlation)
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = canvas(2.6 * columns, 2.6 * rows, theme)
    text, quiet = ink(theme)[:2]
    every = np.concatenate([np.asarray(r, float) for r in correlation.values()])
    low, high = float(every.min()), float(every.max())  # one scale: subjects are compared
    said = []
    for k, name in enumerate(names):
        r = np.asarray(correlation[name], float)
        ax = axes(figure, rows, columns, k + 1, theme=theme)
        ax.set_title(name, loc="left", fontsize=9, color=text)
        if name in ceiling:
            best = np.sqrt(np.clip(np.asarray(ceiling[name], float), 0, 1))
            ax.scatter(best, r, s=4, color=shade(BLUE, theme), alpha=0.35, linewidths=0, rasterized=True)
            ax.plot([0, 1], [0, 1], color=ORANGE, linewidth=1.4)
            ax.axhline(0, color=quiet, linewidth=0.6)
            ax.set(xlim=(0, 1), ylim=(min(-0.3, low), 1), xlabel="√ noise ceiling", ylabel="r")
        else:
            ax.hist(r, bins=40, range=(low, high) if high > low else None, color=shade(BLUE, theme))
            ax.axvline(0, color=quiet, linewidth=0.6)
            ax.set(xlabel="r", ylabel="voxels", xlim=(min(low, 0) - 0.05, max(high, 0) + 0.05))
        said.append(f"{name} mean {r.mean():.2f}, best quarter from {np.quantile(r, 0.75):.2f}")
    line = " The line is the highest correlation that the noise allows." if ceiling else ""
    caption = (
        "Correlation of predicted and measured responses of every voxel over test pictures: "
        f"{'; '.join(said)}.{line} {provenance.sentence()}"
    )
    return Plate(figure, caption, f"One plot a subject of voxels' correlations: {'; '.join(said)}.")
