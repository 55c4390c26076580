"""Category decoding: which category was taken for which, and how far each decoder is above chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lab.errors import InputError
from lab.figures.plate import BLUE, GREEN, ORANGE, Plate, Provenance, Theme, axes, canvas, ink, legend, shade

_LOOK = ((BLUE, "o"), (GREEN, "D"), (ORANGE, "s"))


def confusion_matrices(
    counts: Mapping[str, np.ndarray],
    classes: Sequence[str],
    provenance: Provenance,
    theme: Theme = "light",
) -> Plate:
    """Draw one confusion matrix a decoder, rows what was seen, columns what was decoded.

    Parameters
    ----------
    counts : mapping of str to int array of shape (n_classes, n_classes)
        By decoder; one colour scale for all of them.
    classes : sequence of str
        In the order of rows and columns.
    """
    tables = {name: np.asarray(table) for name, table in counts.items()}
    wanted = (len(classes), len(classes))
    if not tables or any(table.shape != wanted for table in tables.values()):
        raise InputError(
            f"confusions {[t.shape for t in tables.values()]}; need one or more of shape {wanted}"
        )
    text, quiet, line, _ = ink(theme)
    most = max(1, *(int(table.max()) for table in tables.values()))
    side = 0.42 * len(classes) + 1.5
    figure = canvas(min(10.4, side * len(tables)), min(10.4 / len(tables), side), theme)
    said = []
    for k, (name, table) in enumerate(tables.items()):
        ax = axes(figure, 1, len(tables), k + 1, theme=theme)
        image = np.ma.masked_equal(table, 0)  # a cell that never occurred stays the page's ground
        # dark cells carry white figures on both grounds, so the map ends before its lightest shades
        ax.imshow(image, cmap="cividis_r", vmin=0, vmax=most * 1.15, aspect="equal")
        for row, column in np.argwhere(table > 0):
            dark = table[row, column] > 0.5 * most
            ax.text(
                column,
                row,
                str(table[row, column]),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
        ticks = range(len(classes))
        ax.set_xticks(ticks, classes, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
        ax.set_yticks(ticks, classes if k == 0 else [""] * len(classes), fontsize=8)
        ax.tick_params(length=0)
        ax.set_xticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(len(classes) + 1) - 0.5, minor=True)
        ax.grid(which="minor", color=line, linewidth=0.8)
        ax.tick_params(which="minor", length=0)
        ax.spines[:].set_visible(False)
        ax.set_title(name, fontsize=10, color=text)
        ax.set_xlabel("decoded", fontsize=9, color=quiet)
        if k == 0:
            ax.set_ylabel("seen", fontsize=9, color=quiet)
        said.append(
            f"{name}: {int(np.trace(table))} of {int(table.sum())} on the diagonal{_worst(table, classes)}"
        )
    caption = (
        "Trials by what was seen (rows) and what was decoded (columns); the diagonal is right. "
        f"{provenance.sentence()}"
    )
    return Plate(figure, caption, f"Confusion matrices. {'; '.join(said)}.")


def category_accuracies(
    shares: Mapping[str, Mapping[str, float]],
    classes: Sequence[str],
    chance: float,
    provenance: Provenance,
    theme: Theme = "light",
) -> Plate:
    """Draw the share of each category's trials that was decoded, one marker a decoder, with chance.

    Parameters
    ----------
    shares : mapping of str to mapping of str to float
        By decoder, then by category, 0..1.
    classes : sequence of str
    chance : float
    """
    if not shares or not classes:
        raise InputError("no category accuracies to draw; give at least one decoder and one category")
    figure = canvas(10.4, 2.6, theme)
    ax = axes(figure, theme=theme, grid="y")
    width = 0.5 / max(1, len(shares) - 1)
    for k, (name, own) in enumerate(shares.items()):
        colour, marker = _LOOK[k % len(_LOOK)]
        x = np.arange(len(classes)) + (k * width - 0.25 if len(shares) > 1 else 0)
        heights = [own.get(c, np.nan) for c in classes]
        ax.vlines(x, 0, heights, color=shade(colour, theme), linewidth=2, alpha=0.55)
        ax.plot(x, heights, marker, color=shade(colour, theme), markersize=6.5, label=name, clip_on=False)
    ax.axhline(chance, color=ink(theme)[1], linestyle="--", linewidth=1, label="chance")
    ax.set(ylim=(0, 1), xlim=(-0.6, len(classes) - 0.4), ylabel="decoded")
    ax.set_xticks(range(len(classes)), classes)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    legend(ax, theme, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    caption = (
        "Share of each category's trials that was decoded; the dashed line is chance. "
        f"{provenance.sentence()}"
    )
    said = "; ".join(
        f"{name}: best {max(own, key=lambda c: own[c])}, worst {min(own, key=lambda c: own[c])}"
        for name, own in shares.items()
    )
    return Plate(figure, caption, f"Share decoded of {len(classes)} categories. {said}.")


def _worst(table: np.ndarray, classes: Sequence[str]) -> str:
    """Name the confusion that occurred most."""
    off = table - np.diag(np.diag(table))
    if not off.any():
        return ""
    row, column = divmod(int(off.argmax()), len(classes))
    return f", most often {classes[row]} taken for {classes[column]} ({off[row, column]})"
