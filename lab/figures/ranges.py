"""Ranges side by side: the two halves of skip concatenations, and channels against positions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lab.errors import InputError
from lab.figures.distributions import shorten
from lab.figures.plate import BLUE, ORANGE, Plate, Provenance, Theme, axes, canvas, ink, shade


def skip_ranges(
    layers: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
    provenance: Provenance,
    theme: Theme = "light",
) -> Plate:
    """Draw the range of the two halves of every skip concatenation.

    Parameters
    ----------
    layers : mapping of str to mapping of str to mapping of str to array of shape (T,)
        By layer: ``hidden`` (from below) and ``skip``, each with ``min``, ``max`` and ``rms`` by timestep.
    """
    if not layers:
        raise InputError("no layer sees a skip concatenation; nothing to draw")
    text, quiet, *_ = ink(theme)
    figure = canvas(7.4, 0.62 * len(layers) + 1.1, theme)
    ax = axes(figure, theme=theme, grid="x")
    said = []
    styles = {"hidden": (shade(BLUE, theme), "o", 0.17, "from below"), "skip": (ORANGE, "s", -0.17, "skip")}
    for k, (name, halves) in enumerate(layers.items()):
        tops = {}
        for half, (colour, marker, shift, label) in styles.items():
            low, high = float(np.min(halves[half]["min"])), float(np.max(halves[half]["max"]))
            rms = float(np.sqrt(np.mean(np.square(halves[half]["rms"]))))
            y = len(layers) - 1 - k + shift
            ax.barh(
                y, high - low, left=low, height=0.28, color=colour, alpha=0.85, label=label if not k else None
            )
            ax.plot([-rms, rms], [y, y], color=text, marker=marker, markersize=4, linewidth=1.2,
                    label="± rms" if not k and half == "hidden" else None)  # fmt: skip
            tops[half] = max(-low, high)
        wide, narrow = max(tops.values()), min(tops.values())
        said.append(
            f"{name}: below {tops['hidden']:.3g}, skip {tops['skip']:.3g} ({wide / max(narrow, 1e-12):.2f}x)"
        )
    ax.axvline(0, color=quiet, linewidth=0.8)
    ax.use_sticky_edges = False
    ax.margins(x=0.04)
    ax.set_yticks(range(len(layers))[::-1], [shorten(n, 40) for n in layers], fontsize=8)
    ax.set(xlabel="value of the input", ylim=(-0.6, len(layers) - 0.4))
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor=text)
    caption = (
        "Range of the two halves of each skip concatenation (input of the 1x1 shortcut), over all timesteps; "
        f"one scale must cover the wider half. Largest magnitudes: {'; '.join(said)}. {provenance.sentence()}"
    )
    return Plate(figure, caption, f"Range bars of {len(layers)} shortcuts. {'; '.join(said)}.")


def axis_ranges(
    channels: tuple[np.ndarray, np.ndarray],
    positions: tuple[np.ndarray, np.ndarray],
    spreads: tuple[float, float],
    provenance: Provenance,
    tensor: str = "input",
    position: str = "token",
    theme: Theme = "light",
) -> Plate:
    """Draw the range of every channel beside that of every token or pixel: where do the outliers sit.

    Parameters
    ----------
    channels, positions : (low, high), arrays of shape (C,) and (P,)
    spreads : (channel, position)
        DGQ's D of both axes.
    position : str
        "token" or "pixel".
    """
    pairs = {"channel": channels, position: positions}
    if any(len(lo) != len(hi) or not len(lo) for lo, hi in pairs.values()):
        raise InputError("each axis needs as many lows as highs, and at least one")
    text = ink(theme)[0]
    figure = canvas(7.4, 2.7, theme)
    limits = min(lo.min() for lo, _ in pairs.values()), max(hi.max() for _, hi in pairs.values())
    margin = 0.05 * (limits[1] - limits[0]) or 1.0
    for k, ((name, (low, high)), spread, colour) in enumerate(
        zip(pairs.items(), spreads, (shade(BLUE, theme), ORANGE), strict=True)
    ):
        ax = axes(figure, 1, 2, k + 1, theme=theme, grid="y")
        order = np.argsort(-(high - low), kind="stable")
        sides = [np.append(side[order], side[order][-1]) for side in (low, high)]
        ax.fill_between(np.arange(len(low) + 1), *sides, step="post", color=colour, linewidth=0, alpha=0.9)
        ax.set(xlabel=f"{name}, widest first", xlim=(-0.02 * len(low), 1.02 * len(low)))
        ax.set_ylim(limits[0] - margin, limits[1] + margin)
        ax.set_title(f"D = {spread:.3g} over {name}s", fontsize=10, color=text)
        if not k:
            ax.set_ylabel(f"{tensor} range")
    larger = "channel" if spreads[0] >= spreads[1] else position
    said = (
        f"D is {spreads[0]:.3g} over channels, {spreads[1]:.3g} over {position}s: groups pay along {larger}s"
    )
    caption = (
        f"Range of the {tensor} for each channel and for each {position}, on one axis. DGQ's spread {said}. "
        f"{provenance.sentence()}"
    )
    return Plate(
        figure,
        caption,
        f"Two range plots, {len(channels[0])} channels and {len(positions[0])} {position}s. {said}.",
    )
