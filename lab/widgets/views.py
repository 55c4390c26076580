"""Our own views as anywidget modules: heat map, histogram with a draggable grid, brain slices.

JavaScript comes from the package; a saved notebook also holds a PNG, which hosts without widgets show.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

_STATIC = Path(__file__).parent / "static"
_MOST = 240  # columns of a heat map; more channels are joined, their largest value kept
_COARSE = 4  # bins of the histogram joined into one bar


@cache
def viridis() -> np.ndarray:
    """Return the colour map as uint8 (256, 3)."""
    import matplotlib as mpl

    return (mpl.colormaps["viridis"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def with_picture(bundle: Any, view: View) -> Any:
    """Return what a widget shows of itself, with a view's picture for hosts without widgets."""
    data, about = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
    return {**data, "image/png": base64.b64encode(view.png()).decode()}, about


def _drawn(figure: Any) -> np.ndarray:
    """Pixels of a matplotlib figure, uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


class View(anywidget.AnyWidget):
    """A widget that also leaves a picture behind."""

    title = traitlets.Unicode().tag(sync=True)

    def picture(self) -> np.ndarray:
        """Return what it shows as uint8 (H, W, 3); nothing yet."""
        return np.full((1, 1, 3), 255, np.uint8)

    def png(self) -> bytes:
        """Return what it shows as PNG."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.picture()).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return with_picture(super()._repr_mimebundle_(**kwargs), self)


class HeatMap(View):
    """Largest magnitudes by timestep (rows) and channel (columns); a click selects a cell."""

    _esm = _STATIC / "heat.js"
    pixels = traitlets.Bytes(b"\0\0\0").tag(sync=True)
    shape = traitlets.List([1, 1]).tag(sync=True)
    selected = traitlets.List([-1, -1]).tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)

    def show(self, values: np.ndarray, timesteps: Sequence[float], title: str) -> None:
        """Show values (timesteps, channels), not negative, on a log scale."""
        values = np.asarray(values, float)
        channels = values.shape[1]
        self._first = np.unique(np.linspace(0, channels, min(channels, _MOST), endpoint=False).astype(int))
        self._values, self._times = np.maximum.reduceat(values, self._first, axis=1), list(timesteps)
        top = self._values.max() or 1.0
        scaled = np.log10(np.maximum(self._values, top * 1e-4))
        scaled = (scaled - scaled.min()) / max(float(np.ptp(scaled)), 1e-12)
        with self.hold_sync():
            self.selected = [-1, -1]
            self.note = (
                f"columns: channels 0 to {channels - 1}; rows: timesteps {self._times[0]:g} (top) to "
                f"{self._times[-1]:g}; click a cell for its value"
            )
            self.shape = list(self._values.shape)
            self.pixels = viridis()[(scaled * 255).astype(int)].tobytes()
            self.title = f"{title}; up to {top:.3g}, log scale, noise at the top"

    @traitlets.observe("selected")
    def _chosen(self, change: Any) -> None:
        row, column = change["new"]
        if row >= 0:
            self.note = (
                f"channel {self._first[column]}, timestep {self._times[row]:g}: "
                f"largest magnitude {self._values[row, column]:.4g}"
            )

    def picture(self) -> np.ndarray:
        """Return the map with its title, axes and colour scale; one pixel before anything is shown."""
        if not hasattr(self, "_values"):
            return super().picture()
        from matplotlib.colors import LogNorm
        from matplotlib.figure import Figure

        rows, columns = self._values.shape
        figure = Figure((6.8, 2.6), dpi=100, layout="constrained")
        ax, top = figure.add_subplot(), self._values.max() or 1.0
        shown = np.maximum(self._values, top * 1e-4)
        norm = LogNorm(shown.min(), top) if shown.min() < top else None
        image = ax.imshow(shown, "viridis", norm, aspect="auto", interpolation="nearest")
        ticks = np.geomspace(shown.min(), top, 5) if norm else [top]
        bar = figure.colorbar(image, label="largest |x|", ticks=ticks)
        bar.ax.set_yticklabels([f"{tick:.3g}" for tick in ticks])
        bar.ax.minorticks_off()
        places = np.linspace(0, columns - 1, min(columns, 6)).round().astype(int)
        ax.set_xticks(places, [str(self._first[place]) for place in places])
        lines = np.unique(np.linspace(0, rows - 1, min(rows, 8)).round().astype(int))
        ax.set_yticks(lines, [f"{self._times[line]:g}" for line in lines])
        ax.set_xlabel("channel")
        ax.set_ylabel("timestep")
        ax.set_title(self.title, fontsize=8)
        return _drawn(figure)


class Histogram(View):
    """How often values occur, with the levels of a grid; dragging an edge changes ``clip``."""

    _esm = _STATIC / "histogram.js"
    edges: Any = traitlets.List().tag(sync=True)
    density: Any = traitlets.List().tag(sync=True)
    levels: Any = traitlets.List().tag(sync=True)
    each = traitlets.Int(1).tag(sync=True)
    low = traitlets.Float(0.0).tag(sync=True)
    high = traitlets.Float(0.0).tag(sync=True)
    reach = traitlets.Float(1.0).tag(sync=True)
    clip = traitlets.Float(1.0, min=0.05, max=1.0).tag(sync=True)

    def show(self, counts: np.ndarray, edges: np.ndarray, found: Any, title: str) -> None:
        """Show counts (n,) between edges (n + 1,), and a `quant.observation.whatif.WhatIf`."""
        used = np.flatnonzero(counts)
        cut = np.arange(used[0], used[-1] + 1, _COARSE)
        sums = np.add.reduceat(np.asarray(counts, float)[: used[-1] + 1], cut)
        sides = np.append(edges[cut], edges[used[-1] + 1])
        with self.hold_sync():
            self.edges, self.density = sides.tolist(), (sums / sums.sum() / np.diff(sides)).tolist()
            self.reach = float(max(abs(sides[0]), abs(sides[-1])))
            self.each = 1 if len(found.levels) <= 64 else len(found.levels) // 64 + 1
            self.levels = np.asarray(found.levels)[:: self.each].tolist()
            self.low, self.high, self.title = float(found.low), float(found.high), title

    def picture(self) -> np.ndarray:
        """Return the histogram with its levels."""
        from matplotlib.figure import Figure

        figure = Figure((6.4, 2.6), dpi=100, layout="constrained")
        ax = figure.add_subplot()
        if self.density:
            ax.stairs(self.density, self.edges, fill=True, color="#0072B2", alpha=0.6, label="values")
            ax.set_yscale("log")
            ax.set_ylim(ends := ax.get_ylim())
            which = "levels of the grid" + (f" (1 in {self.each})" if self.each > 1 else "")
            ax.vlines(self.levels, *ends, color="#D55E00", lw=0.7, label=which)
            for edge, name in ((self.low, "range kept"), (self.high, None)):
                ax.axvline(edge, color="#7f8790", ls="--", lw=1.2, label=name)
            ax.legend(fontsize=7, loc="upper right")
        ax.set_xlabel("value of the layer's input")
        ax.set_ylabel("density, log")
        ax.set_title(self.title, fontsize=9)
        return _drawn(figure)


class BrainSlices(View):
    """Axial slices of one value for each voxel, with sliders for slice and threshold."""

    _esm = _STATIC / "slices.js"
    values = traitlets.Bytes(b"").tag(sync=True)
    colours = traitlets.Bytes(b"").tag(sync=True)
    shape = traitlets.List([0, 0, 0]).tag(sync=True)
    slice = traitlets.Int(0).tag(sync=True)
    threshold = traitlets.Int(0, min=0, max=254).tag(sync=True)

    def show(self, volume: np.ndarray, title: str) -> None:
        """Show a volume (X, Y, Z) of values that are not negative; 0 is outside."""
        volume = np.asarray(volume, float)
        self._top = top = float(volume.max()) or 1.0
        scaled = np.where(volume > 0, np.maximum(1, np.round(volume / top * 255)), 0).astype(np.uint8)
        with self.hold_sync():
            self.colours, self.shape = viridis().tobytes(), list(volume.shape)
            self.values, self.title = scaled.tobytes(), f"{title}; up to {top:.3g}"
            self.slice = int((scaled > 0).sum((0, 1)).argmax())

    def picture(self) -> np.ndarray:
        """Return the slice with its title and colour scale; one pixel before anything is shown."""
        if not self.values:
            return super().picture()
        from matplotlib.figure import Figure

        values = np.frombuffer(self.values, np.uint8).reshape(self.shape)[:, :, self.slice].T
        shown = np.ma.masked_less(values * (self._top / 255), max(1, self.threshold) * (self._top / 255))
        figure = Figure((5.2, 3.2), dpi=100, layout="constrained")
        ax = figure.add_subplot(facecolor="#e6e6e6")
        image = ax.imshow(shown, "viridis", vmin=0, vmax=self._top, origin="lower", interpolation="nearest")
        figure.colorbar(image)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_xlabel(f"slice {self.slice} (of 0 to {self.shape[2] - 1})")
        ax.set_title(self.title, fontsize=8)
        return _drawn(figure)
