"""A layer's input over channels: by timestep as a heat map, by position as a surface before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LogNorm, Normalize

from lab.errors import InputError
from lab.figures.plate import VERMILION, Plate, Provenance, Theme, axes, canvas, ink, moment

_MOST = 96  # cells a surface has along an axis; more are joined, their largest value kept


def channel_timestep_map(
    values: np.ndarray,
    timesteps: Sequence[float],
    provenance: Provenance,
    statistic: str = "largest magnitude",
    tensor: str = "input",
    marked: Sequence[int] = (),
    mark: str = "salient",
    theme: Theme = "light",
) -> Plate:
    """Draw a statistic of every channel at every timestep, from noise to picture.

    Parameters
    ----------
    values : array of shape (timesteps, channels)
        Not negative.
    timesteps : sequence of float, length T
        In sampling order.
    statistic, tensor : str
        What is shown, of which tensor.
    marked : sequence of int
        Channels with a mark above them.
    mark : str
        What marked channels are.
    """
    values = np.asarray(values, float)
    if values.ndim != 2 or values.shape[0] != len(timesteps) or not np.isfinite(values).all():
        raise InputError(f"values {values.shape} need one finite row for each of {len(timesteps)} timesteps")
    text, quiet, *_ = ink(theme)
    figure = canvas(7.4, 1.5 + 0.09 * min(40, max(12, len(timesteps))), theme)
    ax = axes(figure, theme=theme)
    top = values.max() or 1.0
    positive = values[values > 0]
    low = max(float(np.quantile(positive, 0.02)), top * 1e-4) if positive.size else top / 10
    log = top / low > 8
    norm = LogNorm(low, top, clip=True) if log else Normalize(0, top)
    mesh = ax.pcolormesh(
        np.arange(values.shape[1] + 1), np.arange(len(timesteps) + 1), values, cmap="viridis", norm=norm,
        rasterized=True, shading="flat",
    )  # fmt: skip
    bar = figure.colorbar(mesh, ax=ax, pad=0.01, extend="min" if log and values.min() < low else "neither")
    bar.set_label(statistic + (", log" if log else ""), color=text, fontsize=9)
    bar.ax.tick_params(which="both", colors=quiet, labelcolor=text, labelsize=8)
    bar.outline.set_visible(False)
    step = max(1, len(timesteps) // 8)
    shown = range(0, len(timesteps), step)
    ax.set_yticks([i + 0.5 for i in shown], [moment(timesteps[i]) for i in shown])
    ax.invert_yaxis()
    ax.set(xlabel="channel", ylabel="timestep")
    ax.set_title(f"{tensor}: {statistic} of each channel", loc="left", fontsize=10, color=text,
                 pad=14 if len(marked) else 6)  # fmt: skip
    for channel in marked:
        ax.plot(channel + 0.5, 1.03, "v", color=VERMILION, markersize=6, clip_on=False,
                transform=ax.get_xaxis_transform())  # fmt: skip
    marks = f" Triangles mark {len(marked)} {mark} channel{'s' * (len(marked) > 1)}." if len(marked) else ""
    high, time = int(values.max(0).argmax()), int(values.max(1).argmax())
    dark = f" Values below {low:.2g} are drawn as {low:.2g}." if log and values.min() < low else ""
    caption = (
        f"The layer's {tensor}: {statistic} of each channel (columns) at each timestep (rows, noise at the "
        f"top).{marks}{dark} {provenance.sentence()}"
    )
    alt = (
        f"Heat map of {values.shape[1]} channels by {len(timesteps)} timesteps: the largest value {top:.3g} "
        f"is in channel {high} at timestep {timesteps[time]:g}, the median {np.median(values):.3g}.{marks}"
    )
    return Plate(figure, caption, alt)


def activation_surfaces(
    surfaces: dict[str, np.ndarray],
    provenance: Provenance,
    axis: str = "token",
    units: Mapping[str, float] | None = None,
    theme: Theme = "light",
) -> Plate:
    """Draw magnitudes over channels and positions (or timesteps), tensors side by side on one z-axis.

    A rotation keeps a tensor's scale, so it is compared as it is; smoothing moves the scale into the weight,
    and is compared in units of each tensor's own rms (`units`): what is left is how far values stand out.

    Parameters
    ----------
    surfaces : dict of str to array of shape (channels, positions)
        Title, which says the tensor ("input", "input after smoothing"), to largest magnitudes. All of one
        shape; one to three of them.
    axis : str
        What the second axis is.
    units : mapping of str to float, optional
        By title, what magnitudes are divided by.
    """
    if units is not None:
        surfaces = {title: np.asarray(s) / (units[title] or 1.0) for title, s in surfaces.items()}
    unit = "" if units is None else " in units of each tensor's rms"
    shapes = {np.shape(s) for s in surfaces.values()}
    if not 1 <= len(surfaces) <= 3 or len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise InputError(
            f"surfaces need one to three arrays of one shape (channels, positions), got {shapes}"
        )
    text, quiet, line, _ = ink(theme)
    figure = canvas(3.7 * len(surfaces) + 0.4, 3.7, theme)
    top = max(float(np.max(s)) for s in surfaces.values()) or 1.0
    channels, positions = next(iter(shapes))
    for k, (title, surface) in enumerate(surfaces.items()):
        z = _join(np.asarray(surface, float))
        ax = figure.add_subplot(1, len(surfaces), k + 1, projection="3d")
        x, y = np.meshgrid(
            np.linspace(0, positions - 1, z.shape[1]), np.linspace(0, channels - 1, z.shape[0])
        )
        ax.plot_surface(
            x, y, z, cmap="viridis", norm=Normalize(0, top), rstride=1, cstride=1, linewidth=0,
            antialiased=False, rasterized=True,
        )  # fmt: skip
        ax.set(zlim=(0, top), xlabel=axis, ylabel="channel")
        ax.set_title(
            f"{title}\nlargest {np.max(surface):.3g}{' x rms' if unit else ''}",
            fontsize=10,
            color=text,
            y=0.98,
        )
        ax.view_init(elev=24, azim=-58)
        ax.set_facecolor("none")
        ax.set_box_aspect((1.25, 1.25, 0.8), zoom=1.02)
        for part in (ax.xaxis, ax.yaxis, ax.zaxis):
            part.set_pane_color((0, 0, 0, 0))
            part.line.set_color(quiet)
            part.label.set_color(text)
            part.label.set_fontsize(9)
            part._axinfo["grid"].update(color=line, linewidth=0.6)
        ax.tick_params(which="both", colors=quiet, labelcolor=text, labelsize=7.5, pad=0)
        ax.locator_params(nbins=5)
    joined = f" More than {_MOST} {axis}s or channels are joined, keeping the largest." * (
        max(channels, positions) > _MOST
    )
    said = "; ".join(
        f"{title}: largest {np.max(s):.3g}, largest over median channel {_ratio(np.asarray(s)):.3g}"
        for title, s in surfaces.items()
    )
    caption = (
        f"Largest magnitude over samples at each {axis} and channel{unit}, on one z-axis ({said}).{joined} "
        f"{provenance.sentence()}"
    )
    return Plate(figure, caption, f"{len(surfaces)} surfaces over {channels} channels: {said}.")


def _join(surface: np.ndarray) -> np.ndarray:
    """Keep the largest of neighbouring cells where there are too many to draw."""
    for axis in (0, 1):
        size = surface.shape[axis]
        if size > _MOST:
            starts = np.unique(np.linspace(0, size, _MOST, endpoint=False).astype(int))
            surface = np.maximum.reduceat(surface, starts, axis=axis)
    return surface


def _ratio(surface: np.ndarray) -> float:
    largest = surface.max(1)
    return float(largest.max() / max(float(np.median(largest)), 1e-12))
