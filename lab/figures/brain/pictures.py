"""Pictures beside each other: stimulus, structural picture, full precision, quantized."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from lab.errors import InputError
from lab.figures.plate import Plate, Provenance, Theme, canvas, ink

#: Rows of a grid in reading order: array name, label.
ROWS = (
    ("stimulus", "stimulus"),
    ("structural", "structural picture"),
    ("fp", "full precision"),
    ("quantized", "quantized"),
)
RULE = (
    "best and worst: highest and lowest PixCorr of the quantized reconstruction; median: nearest to the "
    "middle of the ranking; random: drawn with the run's seed from the rest, whatever they look like"
)


def rows_of(strength: float | None) -> tuple[tuple[str, str], ...]:
    """Rows for a run: diffusion that starts at pure noise (strength 1) uses no structural picture."""
    return tuple(row for row in ROWS if row[0] != "structural" or strength != 1)


def choose(score: np.ndarray, n_each: int = 3, seed: int = 0) -> list[tuple[str, list[int]]]:
    """Choose pictures by rule: best, median, worst, and random ones of the rest.

    Parameters
    ----------
    score : array of shape (n,)
        One score a picture, larger is better; ties keep their order.
    n_each : int
        Most pictures a group; fewer where there are not enough, and no picture twice.
    seed : int
        Draws the random ones.

    Returns
    -------
    list of (str, list of int)
        Groups in reading order with indices into `score`; empty groups are left out.

    Examples
    --------
    >>> choose(np.array([0.1, 0.9, 0.5, 0.3]), n_each=1)
    [('best', [1]), ('median', [2]), ('worst', [0]), ('random', [3])]
    """
    score = np.nan_to_num(np.asarray(score, float), nan=-np.inf)
    if score.ndim != 1 or score.size == 0 or n_each < 1:
        raise InputError(
            f"score has shape {score.shape}, n_each={n_each}; need (n,) with n >= 1 and n_each >= 1"
        )
    order = np.argsort(-score, kind="stable").tolist()
    n = min(n_each, max(1, len(order) // 4))
    groups = {"best": order[:n]}
    rest = order[n:]
    groups["worst"] = rest[len(rest) - n :]
    rest = rest[: len(rest) - n]
    # The middle of the whole ranking is the middle of what is left, since as many went from both ends.
    start = max(0, (len(rest) - n) // 2)
    groups["median"] = rest[start : start + n]
    rest = rest[:start] + rest[start + n :]
    drawn = np.random.default_rng(seed).permutation(len(rest))[:n]
    groups["random"] = [rest[i] for i in drawn]
    return [(name, groups[name]) for name in ("best", "median", "worst", "random") if groups[name]]


def picture_png(picture: np.ndarray, least: int = 64) -> str:
    """Return one picture as a PNG data URI, small ones enlarged by a whole factor without smoothing.

    Parameters
    ----------
    picture : array of shape (H, W) or (H, W, 3)
        In 0..1; rounded to 8 bits.
    least : int
        Smallest side in pixels.
    """
    eight = np.rint(np.clip(np.nan_to_num(picture), 0, 1) * 255).astype(np.uint8)
    factor = max(1, -(-least // min(eight.shape[:2])))
    buffer = io.BytesIO()
    image = Image.fromarray(eight)
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture_grid(
    pictures: Mapping[str, np.ndarray],
    groups: Sequence[tuple[str, Sequence[int]]],
    score: np.ndarray,
    provenance: Provenance,
    theme: Theme = "light",
    rows: Sequence[tuple[str, str]] = ROWS,
) -> Plate:
    """Draw chosen pictures as columns, one row a kind, the score of the quantized one above each column.

    Parameters
    ----------
    pictures : mapping of str to array of shape (n, H, W) or (n, H, W, 3)
        In 0..1; rows that are missing are left out.
    groups : sequence of (str, indices)
        As `choose` gives them.
    score : array of shape (n,)
        PixCorr of the quantized reconstruction.
    """
    shown = [(key, label) for key, label in rows if key in pictures]
    columns = [(group, i, k == 0) for group, indices in groups for k, i in enumerate(indices)]
    if not shown or not columns:
        raise InputError(f"no pictures to show: arrays {sorted(pictures)}, {len(columns)} chosen")
    text, quiet, _, _ = ink(theme)
    figure = canvas(1.0 * len(columns) + 1.1, 1.0 * len(shown) + 0.5, theme)
    ax = figure.add_subplot()
    # One axes for all: an axes each would take a second to lay out.
    for c, (group, index, first) in enumerate(columns):
        for r, (key, _) in enumerate(shown):
            box = (c, c + 0.94, -r - 0.94, -r)
            ax.imshow(pictures[key][index], cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=box)
        ax.text(
            c + 0.47, 0.06, f"{score[index]:.2f}", ha="center", fontsize=9, color=text if first else quiet
        )
        if first:
            ax.text(c + 0.47, 0.26, group, ha="center", fontsize=9, color=text)
    for r, (_, label) in enumerate(shown):
        ax.text(-0.08, -r - 0.47, label, ha="right", va="center", fontsize=9, color=text)
    ax.set(xlim=(-0.05, len(columns)), ylim=(-len(shown), 0.4), aspect="equal")
    ax.axis("off")
    caption = (
        f"Chosen by rule ({RULE}). Above each column: PixCorr of the quantized one. {provenance.sentence()}"
    )
    counts = ", ".join(f"{len(indices)} {group}" for group, indices in groups)
    alt = f"Grid of pictures: {', '.join(label for _, label in shown)} in rows; {counts} in columns."
    return Plate(figure, caption, alt)
