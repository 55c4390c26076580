"""What `observe` returns: statistics of inputs, weights and attention, and tables of them."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quant.errors import InputError
from quant.observation.rows import STATISTICS, layer_row, step_rows
from quant.observation.stats import AttentionStats, TensorStats, WeightStats


@dataclass
class Observation:
    """Streaming statistics of a model on a recording.

    Attributes
    ----------
    settings : dict
        JSON-able: what was looked at, the rule for outliers, the recording's settings and hash, versions.
    inputs : dict of str to TensorStats
        By layer name; a tensor after a transform as ``"layer [input after ...]"``.
    weights : dict of str to WeightStats
        By the same names.
    attention : dict of str to AttentionStats
        By module name.
    """

    settings: dict[str, Any]
    inputs: dict[str, TensorStats]
    weights: dict[str, WeightStats]
    attention: dict[str, AttentionStats] = field(default_factory=dict)

    def layer_table(self, sort: str | None = None) -> list[dict[str, Any]]:
        """One row a tensor, over all timesteps.

        Parameters
        ----------
        sort : str, optional
            A name of `STATISTICS`; largest first, rows without the statistic last. By default in model order.

        Raises
        ------
        InputError
            Unknown statistic.
        """
        if sort is not None:
            check_statistic(sort)
        rows = [layer_row(stats, self.weights.get(key)) for key, stats in self.inputs.items()]
        if sort is None:
            return rows
        return sorted(rows, key=lambda row: (row[sort] is None, -(row[sort] or 0.0)))

    def distinct(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Join rows of layers that read the same tensor, as queries, keys and values do.

        Parameters
        ----------
        rows : list of dict
            Of `layer_table`; those of transformed inputs are left out.

        Returns
        -------
        list of dict
            The first row of each tensor; ``also`` counts the further layers that read it.
        """
        kept: dict[bytes, dict[str, Any]] = {}
        for row in rows:
            if row["tensor"] == "input":
                channel = self.inputs[row["layer"]].channel
                first = kept.setdefault(
                    channel["mean"].tobytes() + channel["max"].tobytes(), {**row, "also": -1}
                )
                first["also"] += 1
        return list(kept.values())

    def step_table(self) -> list[dict[str, Any]]:
        """One row a tensor and timestep."""
        return [row for stats in self.inputs.values() for row in step_rows(stats)]

    def steps_of(self, key: str) -> list[dict[str, Any]]:
        """One row a timestep of one tensor."""
        return step_rows(self.inputs[key])

    def attention_table(self) -> list[dict[str, Any]]:
        """One row an attention module, over all timesteps."""
        return [stats.row() for stats in self.attention.values()]

    def smoothing(self, layer: str, alpha: float = 0.5) -> Callable:
        """Transform that divides a layer's channels by ``max|X|^alpha / max|W|^(1 - alpha)``.

        The factors of SmoothQuant (Xiao et al. 2023, eq. 4) from what was seen; a channel that is dead on
        either side keeps the factor 1.

        Raises
        ------
        InputError
            The layer was not looked at, or its channels are not its weight's (grouped convolutions).
        """
        from quant.observation.names import nearest
        from quant.observation.transforms import smooth

        if layer not in self.inputs or layer not in self.weights:
            close = nearest(layer, list(self.inputs), 1)[0]
            raise InputError(f"layer {layer!r} was not looked at; nearest name: {close!r}")
        return smooth(self.inputs[layer], self.weights[layer], alpha)

    def save(self, folder: str | Path) -> Path:
        """Write tables, histograms and ``observation.json`` (see `quant.observation.store`)."""
        from quant.observation.store import save

        pieces = (self.settings, self.inputs, self.weights, self.attention)
        return save(pieces, self.layer_table(), self.step_table(), folder)

    @classmethod
    def load(cls, folder: str | Path) -> Observation:
        """Read what `save` wrote.

        Raises
        ------
        MissingDataError
            There is none, or a file of it is missing or damaged.
        """
        from quant.observation.store import load

        return cls(*load(folder))

    def __repr__(self) -> str:
        return f"Observation({self.settings.get('model')}: {len(self.inputs)} tensors)"

    def _repr_html_(self) -> str:
        from html import escape

        names = ("layer", "tensor", "channels", "absmax", "rms", "kurtosis", "outlier_share", "drift")
        head = "".join(f"<th>{name}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_shown(row[name]))}</td>" for name in names) + "</tr>"
            for row in self.layer_table("absmax")[:50]
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def check_statistic(name: str) -> str:
    """Return the name of a statistic, or say which there are.

    Raises
    ------
    InputError
        There is no such statistic.
    """
    if name not in STATISTICS:
        close = difflib.get_close_matches(name, STATISTICS, 1, 0.4)
        raise InputError(
            f"unknown statistic {name!r}"
            + (f" (did you mean {close[0]!r}?)" if close else "")
            + f"; allowed: {', '.join(STATISTICS)}"
        )
    return name


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
