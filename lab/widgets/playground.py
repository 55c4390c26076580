"""Looking at a model, and dragging a quantizer over what was seen; answers come from statistics alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipywidgets as w

from lab.jobs.contract import Context
from lab.jobs.models import look, whatif
from lab.widgets.forms import Debounced, Words, control, table
from lab.widgets.views import HeatMap, Histogram, with_picture


class Playground(w.VBox):
    """Histogram of one tensor with a grid that can be dragged, and its errors.

    Parameters
    ----------
    stats : quant.observation.TensorStats
    """

    def __init__(self, stats: Any) -> None:
        start = whatif.Settings()
        names = ("format", "bits", "shared", "clip")
        self.controls = {name: control(whatif.Settings, name, getattr(start, name)) for name in names}
        self.view, self.numbers = Histogram(), Words()
        self.found: Any = None
        w.link((self.view, "clip"), (self.controls["clip"], "value"))
        self.answer = Debounced(self.update)
        for box in self.controls.values():
            box.observe(self.answer, "value")
        super().__init__([*self.controls.values(), self.view, self.numbers])
        self.show(stats)

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return with_picture(super()._repr_mimebundle_(**kwargs), self.view)

    def show(self, stats: Any) -> None:
        """Look at another tensor."""
        self.stats = stats
        self.update()

    def update(self) -> None:
        """Round on paper with what the controls say."""
        from quant.observation import bins
        from quant.observation.whatif import what_if

        said = {name: box.value for name, box in self.controls.items()}
        grid = whatif.grid_of(said["format"], said["bits"])
        self.found = found = what_if(self.stats, grid, said["shared"], said["clip"])
        title = f"{self.stats.tensor} of {self.stats.layer}, {grid.label} (simulated)"
        self.view.show(self.stats.histogram.sum(0), bins.edges().numpy(), found, title)
        self.numbers.value = table([{
            "SQNR (dB)": f"{found.sqnr_db:.2f}", "mean squared error": f"{found.mse:.4g}",
            "clipped": f"{found.clipped:.3%}", "become 0": f"{found.zeroed:.2%}", "arithmetic": "simulated",
        }])  # fmt: skip


class Inspect(w.VBox):
    """Layers of a denoiser: channels by timestep, and the quantizer playground.

    Parameters
    ----------
    model : str
    layer : str
        Empty: the one with the largest magnitude.
    recording : path, optional
        Of a model of one's own.
    """

    def __init__(self, model: str, layer: str = "", recording: Path | str | None = None) -> None:
        self._settings = look.Settings(model=model, recording=None if recording is None else Path(recording))
        self.seen = look.run(self._settings, Context())
        names = [row["layer"] for row in self.seen.layer_table("absmax") if row["tensor"] == "input"]
        first = whatif.layer_of(self.seen, layer)
        self.layer = w.Dropdown(options=names, value=first, description="layer", layout=w.Layout(width="95%"))
        self.heat, self.source = HeatMap(), Words()
        self.playground = Playground(self.seen.inputs[first])
        self.layer.observe(lambda change: self.update(), "value")
        super().__init__([self.layer, self.heat, self.playground, self.source])
        self.update()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return with_picture(super()._repr_mimebundle_(**kwargs), self.heat)

    def update(self) -> None:
        """Show the chosen layer."""
        stats = self.seen.inputs[self.layer.value]
        self.heat.show(stats.absmax, list(stats.timesteps), f"Input of {stats.layer}: largest magnitude")
        self.playground.show(stats)
        sentence = look.source(self._settings, self.seen, stats.layer).sentence()
        self.source.value = f"<small>{sentence}</small>"
