"""Where attention goes: mass on the leading token by layer, and the spread of its probabilities."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lab.errors import InputError
from lab.figures.distributions import shorten
from lab.figures.plate import BLUE, ORANGE, VERMILION, Plate, Provenance, Theme, axes, canvas, ink, shade


def sink_mass(
    modules: Mapping[str, np.ndarray],
    provenance: Provenance,
    theme: Theme = "light",
) -> Plate:
    """Draw how much attention each key gets in every module, and its share on the leading one.

    Parameters
    ----------
    modules : mapping of str to array of shape (timesteps, keys)
        Mean probability of each key. The same number of keys everywhere.
    """
    shapes = {np.shape(m)[1:] for m in modules.values()}
    if not modules or len(shapes) != 1 or any(np.ndim(m) != 2 for m in modules.values()):
        raise InputError(f"sink mass needs (timesteps, keys) arrays with equal keys, got {sorted(shapes)}")
    keys = next(iter(shapes))[0]
    names = list(modules)
    mass = np.stack([np.mean(modules[name], 0) for name in names])
    text, quiet, *_ = ink(theme)
    figure = canvas(9.6, 0.3 * len(names) + 1.3, theme)
    grid = figure.add_gridspec(1, 2, width_ratios=(3, 2))
    ax = axes(figure, grid[0], theme=theme)  # type: ignore[arg-type]
    mesh = ax.pcolormesh(
        np.arange(keys + 1) - 0.5, np.arange(len(names) + 1), mass, cmap="viridis", vmin=0,
        vmax=max(mass.max(), 2 / keys), rasterized=True,
    )  # fmt: skip
    rows = np.arange(len(names)) + 0.5
    ax.plot(mass.argmax(1), rows, "o", color=VERMILION, markersize=5, markerfacecolor="none", label="largest")
    ax.set_yticks(rows, [shorten(n, 34) for n in names], fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="key (token); circle: the largest")
    bar = figure.colorbar(mesh, ax=ax, pad=0.01)
    bar.ax.tick_params(colors=quiet, labelcolor=text, labelsize=8)
    bar.outline.set_visible(False)
    bar.set_label("mean probability", color=text, fontsize=9)
    side = axes(figure, grid[1], theme=theme, grid="x")  # type: ignore[arg-type]
    for row, name in zip(rows, names, strict=True):
        leading = np.asarray(modules[name])[:, 0]
        side.plot(
            [leading.min(), leading.max()],
            [row, row],
            color=shade(BLUE, theme),
            linewidth=3,
            solid_capstyle="round",
        )
        side.plot(leading.mean(), row, "o", color=text, markersize=5)
    side.axvline(1 / keys, color=quiet, linestyle="--", linewidth=1)
    side.set_yticks(rows, [])
    side.annotate("uniform", (1 / keys, 1), xycoords=("data", "axes fraction"), xytext=(0, 3), fontsize=8,
                  textcoords="offset points", ha="center", color=text)  # fmt: skip
    side.set(xlabel="mass on the leading token", ylim=(len(names), 0))
    side.set_xlim(left=0)
    most = int(mass[:, 0].argmax())
    sinks = int((mass.argmax(1) == 0).sum())
    said = (
        f"the leading token gets {mass[:, 0].min():.3g} to {mass[:, 0].max():.3g} (most in {names[most]}), "
        f"is the largest in {sinks} of {len(names)} modules; uniform is {1 / keys:.3g}"
    )
    caption = (
        f"Cross-attention mass by key, mean over samples, heads, queries and timesteps; right, the leading "
        f"token with its range over timesteps: {said}. {provenance.sentence()}"
    )
    return Plate(figure, caption, f"Heat map of {len(names)} modules by {keys} keys: {said}.")


def score_histogram(
    edges: np.ndarray,
    leading: np.ndarray,
    rest: np.ndarray,
    provenance: Provenance,
    module: str = "cross-attention",
    uniform_bits: int = 4,
    theme: Theme = "light",
    below: tuple[int, int] = (0, 0),
) -> Plate:
    """Draw the spread of attention probabilities, the leading token's apart from the others'.

    Parameters
    ----------
    edges : array of shape (n + 1,)
        Positive, ascending; equal on a log axis.
    leading, rest : array of shape (n,)
        Counts; all zeros in `leading` where there is no leading token (self-attention).
    module : str
    uniform_bits : int
        A uniform grid's first level above 0 is drawn at half a step: what lies left of it becomes 0.
    below : (int, int)
        How many of the leading token's and of the others' lie below the first edge, 0 included: no
        logarithmic axis shows them, but every share counts them.
    """
    edges, leading, rest = (np.asarray(a, float) for a in (edges, leading, rest))
    every = {"leading": leading.sum() + below[0], "rest": rest.sum() + below[1]}
    total = sum(every.values())
    if (
        edges.shape != (len(leading) + 1,)
        or leading.shape != rest.shape
        or edges[0] <= 0
        or not (leading + rest).any()
    ):
        raise InputError(f"scores need counts and {len(leading) + 1} positive edges, got {edges.shape}")
    text = ink(theme)[0]
    figure = canvas(7.4, 2.8, theme)
    ax = axes(figure, theme=theme, grid="y")
    width = np.diff(np.log2(edges))
    parts = {"all keys": (rest, every["rest"])}
    if every["leading"]:
        parts = {"other keys": (rest, every["rest"]), "leading token": (leading, every["leading"])}
    for (label, (counts, whole)), colour in zip(parts.items(), (shade(BLUE, theme), ORANGE), strict=False):
        shares = counts / max(whole, 1) / width
        ax.stairs(shares, edges, fill=True, color=colour, alpha=0.45)
        # the outline differs as well, for those who cannot tell the colours
        ax.stairs(shares, edges, color=text if counts is leading else colour, linewidth=1.2,
                  linestyle="--" if counts is leading else "-",
                  label=f"{label} ({whole / total:.1%} of all)" if len(parts) > 1 else label)  # fmt: skip
    half = 0.5 / (2**uniform_bits - 1)
    under = np.clip((half - edges[:-1]) / np.diff(edges), 0, 1)  # of a bin that half a step cuts, its share
    lost = (sum(below) + ((leading + rest) * under).sum()) / total
    ax.axvline(
        half,
        color=VERMILION,
        linestyle=":",
        linewidth=1.6,
        label=f"half a step of uniform {uniform_bits} bits",
    )
    used = np.flatnonzero(leading + rest)
    ax.set_xscale("log", base=2)
    ax.set(
        xlim=(edges[max(used[0], 0)], 1.0), xlabel="attention probability (log)", ylabel="share per octave"
    )
    ax.set_title(shorten(module, 70), loc="left", fontsize=10, color=text)
    hidden = sum(below) / total
    if hidden >= 5e-4:
        ax.plot([], [], " ", label=f"{hidden:.1%} lie left of the axis")
    ax.legend(frameon=False, fontsize=9, labelcolor=text)
    above = (leading + rest)[edges[:-1] >= 0.5 * (1 - 1e-9)].sum() / total
    left = f"; {hidden:.1%} are below {edges[0]:.2g}, left of the axis" if hidden else ""
    said = (
        f"{lost:.1%} of them become 0 in a uniform {uniform_bits}-bit grid, {above:.1%} are above 1/2{left}"
    )
    caption = (
        f"Attention probabilities of {module}, over samples, heads, queries and timesteps: {said}. "
        f"{provenance.sentence()}"
    )
    return Plate(figure, caption, f"Histogram on a log axis: {said}.")
