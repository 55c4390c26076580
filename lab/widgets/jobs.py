"""Two jobs as widgets: pictures by several recipes, and trials of a trained run decoded again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipywidgets as w

from lab.cache import cache_folder
from lab.widgets.forms import JobForm, Words, table
from quant.recordings.shards import read_manifest


class Compare(JobForm):
    """The same pictures in full precision and with recipes (simulated)."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        out: dict[str, Any] = {"out": cache_folder("widgets", "variants")}
        if given.get("recording") is not None:
            made = read_manifest(Path(given["recording"]))["settings"]
            out |= {"steps": made["n_steps"], "guidance": made["guidance"]}
        super().__init__("variants", {**out, **given}, ("recipes", "n", "steps", "guidance", "seed"))

    def show(self, result: Any) -> list[Any]:
        """Return the scores, then a sheet of pictures for each recipe."""
        sheets = [
            w.VBox([w.Label(name), w.Image(value=Path(file).read_bytes(), format="png", width=260)])
            for name, file in result.pictures.items()
        ]
        return [Words(table(result.rows)), w.HBox(sheets)]


class Reconstruct(JobForm):
    """Trials of a trained run, decoded with these settings (bits simulated), beside ridge."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        out = {"out": cache_folder("widgets", "decode")}
        names = ("trials", "recipe", "guidance", "strength", "steps", "mask", "semantic", "seed")
        super().__init__("brain decode", {**out, **given}, names)

    def show(self, result: Any) -> list[Any]:
        """Return the leak check, whose voxels they are and what is odd about them, the sheet, the scores."""
        _, *lines = result.tables()
        rows = w.Label("rows: " + ", ".join(result.shown))
        sheet = w.Image(value=Path(result.sheet).read_bytes(), format="png", width=480)
        words = Words(table([{"": row["text"]} for said in lines for row in said.rows]))
        return [words, rows, sheet, Words(table(result.rows))]
