"""Which layers hurt: quantize one layer alone (or all but one) and measure what the denoiser does.

Every setting quantizes the whole model once; single layers are then switched with their `active` flag, so
the cost is one probe a row. Attention modules whose scores or values are rounded are switched the same way
and have rows of their own (kind "Attention"): in the row of one layer all attention is in full precision.
Rows are written while they come, and a second call goes on where the first one stopped.

>>> import quant
>>> from quant.sensitivity.by_layer import layer_sensitivity
>>> # table = layer_sensitivity(model, "rtn-w8a8", store, settings={"w4": {"weight_bits": 4}}, path="s.json")
>>> # table.sorted("sqnr_db")[:10]
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from quant.api import plan, quantize_
from quant.errors import InputError
from quant.io import write_text
from quant.layers.attention import Watcher, attention_watchers
from quant.layers.install import quant_layers, refuse_quantized, restore_
from quant.layers.quantized import QuantLayer
from quant.progress import Progress
from quant.recipes import resolve
from quant.recordings.trajectories import Trajectories
from quant.registry import validate
from quant.sensitivity.probes import NoisePrediction, Probe

Side = Literal["both", "weight", "activation"]
Mode = Literal["one-on", "one-off"]
ALL = "*"
"""Layer name of the row with every layer quantized."""


@dataclass(frozen=True)
class Row:
    """One layer, one setting, one side, and what came of it."""

    layer: str
    kind: str
    setting: str
    side: str
    metrics: dict[str, float]
    by_timestep: dict[str, float] = field(default_factory=dict)
    """Noise power over signal power of the prediction, by timestep value."""


@dataclass
class Sensitivity:
    """Rows of one run and the settings that they belong to."""

    made_with: dict[str, Any]
    rows: list[Row]

    def sorted(self, metric: str = "sqnr_db", worst_first: bool = True) -> list[Row]:
        """Rows by a metric; the row of the whole model is left out.

        Raises
        ------
        InputError
            No row has that metric.
        """
        rated = [row for row in self.rows if row.layer != ALL and metric in row.metrics]
        if not rated:
            known = sorted({name for row in self.rows for name in row.metrics})
            raise InputError(f"no metric {metric!r} in this table, there are: {', '.join(known)}")
        # errors are bad when large, everything else (dB, similarity) is bad when small
        sign = -1 if metric.endswith("mse") else 1
        return sorted(rated, key=lambda r: sign * (1 if worst_first else -1) * r.metrics[metric])

    def of(self, setting: str, side: str = "both", metric: str = "sqnr_db") -> dict[str, float]:
        """Metric by layer name for one setting and side."""
        return {
            row.layer: row.metrics[metric]
            for row in self.rows
            if (row.setting, row.side) == (setting, side) and row.layer != ALL and metric in row.metrics
        }

    def table(self, metric: str = "sqnr_db", count: int = 20) -> str:
        """Plain text: the `count` worst rows."""
        rows = self.sorted(metric)[:count]
        width = max(len(row.layer) for row in rows)
        lines = [f"{'layer':{width}}  {'setting':10} {'side':10} {metric:>12}"]
        lines += [f"{r.layer:{width}}  {r.setting:10} {r.side:10} {r.metrics[metric]:12.5g}" for r in rows]
        return "\n".join(lines)

    def save(self, path: str | Path) -> Path:
        """Write JSON, atomically."""
        target = Path(path)
        data = {"made_with": self.made_with, "rows": [asdict(row) for row in self.rows]}
        write_text(target, json.dumps(data, indent=1, sort_keys=True) + "\n")
        return target

    @classmethod
    def load(cls, path: str | Path) -> Sensitivity:
        """Read `save`'s file.

        Raises
        ------
        InputError
            Not such a file.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(data["made_with"], [Row(**row) for row in data["rows"]])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is not a sensitivity table ({error}): delete it, or use another path"
            ) from None


def layer_sensitivity(
    model: nn.Module,
    recipe: str | BaseModel,
    trajectories: Trajectories,
    *,
    settings: dict[str, dict[str, Any]] | None = None,
    sides: Sequence[Side] = ("both",),
    mode: Mode = "one-on",
    probes: Sequence[Probe] | None = None,
    include: Iterable[str] = (),
    path: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sensitivity:
    """Measure each layer alone.

    Parameters
    ----------
    model : torch.nn.Module
        Full precision; left as it was.
    recipe : str or config
        What quantizes.
    trajectories : Trajectories
    settings : dict
        Name to changes of the recipe's config, as ``{"w4": {"weight_bits": 4}}``; the recipe
        itself by default.
    sides : sequence of {"both", "weight", "activation"}
        What of a layer is quantized; "activation" keeps the float weight, "weight" the float input.
    mode : {"one-on", "one-off"}
        One layer quantized and the rest in full precision, or the other way round.
    probes : sequence of Probe
        What is measured; the noise prediction at recorded points by default.
    include : wildcards over layer names
    path : file, optional
        JSON of the rows; an unfinished one made with the same settings is continued.
    seed : int
    progress : callable

    Returns
    -------
    Sensitivity
        With one row more for each setting and side: layer "*", everything quantized. Attention modules come
        before the layers, and not on the side "weight", where they have nothing.

    Raises
    ------
    InputError
        `path` holds a table made with other settings; the model is quantized.
    """
    refuse_quantized(model)
    include = include if isinstance(include, str) else tuple(include)  # asked for several times
    _, chosen, config = resolve(recipe)
    settings = {"recipe": {}} if settings is None else settings
    configs = {name: validate(chosen, {**config.model_dump(), **new}) for name, new in settings.items()}
    probes = [NoisePrediction(trajectories)] if probes is None else list(probes)
    made_with = {
        "method": chosen.name, "settings": {k: c.model_dump(mode="json") for k, c in configs.items()},
        "sides": list(sides), "mode": mode, "include": sorted(include), "seed": seed,
        "trajectories": trajectories.hash, "model": fingerprint(model),
        "probes": [p.describe() for p in probes],
    }  # fmt: skip
    result = _begin(path, json.loads(json.dumps(made_with)))
    done = {(row.layer, row.setting, row.side) for row in result.rows}
    wanted = {
        name: [ALL, *(line.name for line in plan(model, c, include=include).quantized)]
        for name, c in configs.items()
    }
    expected = {(layer, name, side) for name, layers in wanted.items() for layer in layers for side in sides}
    references: list[Any] = []
    saved = time.monotonic()
    for setting, names in wanted.items():
        # attention modules, which only the quantized model knows, come first: they are done if layers are
        if all((layer, setting, side) in done for layer in names for side in sides):
            continue
        references = references or [probe.run(model) for probe in probes]
        quantize_(model, configs[setting], trajectories=trajectories, include=include, seed=seed)
        try:
            layers, attention = quant_layers(model), attention_watchers(model)
            expected |= {(name, setting, side) for name in attention for side in sides if side != "weight"}
            for side in sides:
                first = () if side == "weight" else tuple(attention)
                for name in (ALL, *first, *names[1:]):
                    if (name, setting, side) in done:
                        continue
                    parts = _Parts(layers, attention)
                    row = _measure(model, parts, name, setting, side, mode, probes, references)
                    result.rows.append(row)
                    done.add((name, setting, side))
                    if path is not None and time.monotonic() - saved > 2:
                        result.save(path)
                        saved = time.monotonic()
                    if progress is not None:
                        where = "all layers" if name == ALL else name
                        how = "" if (setting, side) == ("recipe", "both") else f" ({setting}, {side})"
                        progress(len(done), len(done | expected), f"measuring {where}{how}")
        finally:
            restore_(model)
            if path is not None:
                result.save(path)
    return result


@dataclass(frozen=True)
class _Parts:
    """What a quantized model can switch."""

    layers: dict[str, QuantLayer]
    attention: dict[str, Watcher]

    def kind(self, name: str) -> str:
        if name == ALL:
            return ""
        if name in self.attention:
            return "Attention"
        return "Linear" if isinstance(self.layers[name], nn.Linear) else "Conv2d"


def _measure(
    model: nn.Module, parts: _Parts, name: str, setting: str, side: Side, mode: Mode,
    probes: Sequence[Probe], references: Sequence[Any],
) -> Row:  # fmt: skip
    active = {*parts.layers, *parts.attention}
    if name != ALL:
        active = {name} if mode == "one-on" else active - {name}
    metrics: dict[str, float] = {}
    by_timestep: dict[str, float] = {}
    with _only(parts, active, side):
        for probe, reference in zip(probes, references, strict=True):
            found, times = probe.compare(reference, probe.run(model))
            metrics.update(found)
            by_timestep.update(times)
    return Row(name, parts.kind(name), setting, side, metrics, by_timestep)


@contextmanager
def _only(parts: _Parts, active: set[str], side: Side) -> Iterator[None]:
    """Switch on `active` parts only, and of them only one side; put everything back."""
    layers = parts.layers
    before = {name: (layer.active, layer.input_quantizer) for name, layer in layers.items()}
    watching = {name: watcher.active for name, watcher in parts.attention.items()}
    try:
        for name, layer in layers.items():
            layer.active = name in active
            if layer.active and side == "weight":
                layer.input_quantizer = None
            if layer.active and side == "activation":
                layer.stand_in = _float_weight(layer)
        for name, watcher in parts.attention.items():
            watcher.active = name in active and side != "weight"
        yield
    finally:
        for name, layer in layers.items():
            layer.active, layer.input_quantizer = before[name]
            layer.stand_in = None
        for name, watcher in parts.attention.items():
            watcher.active = watching[name]


def _float_weight(layer: QuantLayer) -> Tensor:
    """Look up the weight that the layer's codes stand for, before rounding."""
    weight = getattr(layer.original, "weight").detach()  # noqa: B009 - mypy cannot see it
    if layer.branch is not None and hasattr(layer.branch, "weight"):
        weight = weight - layer.branch.weight().reshape(weight.shape).to(weight.dtype)
    transform = layer.transform
    return transform.to_weight(weight) if hasattr(transform, "to_weight") else weight  # type: ignore[union-attr]


def fingerprint(model: nn.Module) -> str:
    """Hash over names, types, shapes and values of a model's tensors."""
    sha = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        sha.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _begin(path: str | Path | None, made_with: dict[str, Any]) -> Sensitivity:
    if path is None or not Path(path).is_file():
        return Sensitivity(made_with, [])
    known = Sensitivity.load(path)
    changed = sorted(key for key in made_with if made_with[key] != known.made_with.get(key))
    if changed:
        raise InputError(f"{path} was made with another {changed[0]}: delete it, or use another path")
    return known
