"""An observation on disk.

::

    observation.json      settings, names, what each npz entry belongs to
    layers.parquet        one row a tensor
    timesteps.parquet     one row a tensor and timestep
    channels.parquet      one row a tensor, timestep and channel
    weights.parquet       one row a layer and output or input channel
    attention.parquet     one row an attention module and timestep
    histograms.npz        bin edges, histograms, ranges of positions, surfaces, attention mass by key
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from quant.errors import MissingDataError
from quant.io import replacing, write_text
from quant.observation import bins
from quant.observation.stats import CHANNEL_FIELDS, AttentionStats, TensorStats, WeightStats

FORMAT = 1
Pieces = tuple[dict[str, Any], dict[Any, TensorStats], dict[str, WeightStats], dict[str, AttentionStats]]
"""What an observation is made of: settings, inputs, weights, attention."""
Rows = list[dict[str, Any]]
_ARRAYS = ("histogram", "channel_histogram", "threshold", "position_low", "position_high", "surface")
_HEADS = ("mass", "head_mass", "leading", "rest")


def save(pieces: Pieces, layers: Rows, steps: Rows, folder: str | Path) -> Path:
    """Write an observation and its tables into a folder (made if missing); ``observation.json`` comes last.

    That of an earlier one goes first: stopped in between, the folder holds none, and not half of each.

    Parameters
    ----------
    pieces : tuple
        Settings, inputs, weights, attention.
    layers, steps : list of dict
        One row a tensor; one row a tensor and timestep.
    folder : path
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in ("observation.json", "attention.parquet"):
        (folder / earlier).unlink(missing_ok=True)
    settings, inputs, weights, heads = pieces
    _table(folder / "layers.parquet", _columns(layers))
    _table(folder / "timesteps.parquet", _columns(steps))
    channels = _joined([_channel_columns(i, s) for i, s in enumerate(inputs.values())])
    _name(channels, "layer", [s.layer for s in inputs.values()])
    _name(channels, "tensor", [s.tensor for s in inputs.values()])
    _table(folder / "channels.parquet", channels)
    axes = ("output", "input")
    both = _joined([_weight_columns(i, w, axis) for i, w in enumerate(weights.values()) for axis in axes])
    _name(both, "layer", list(weights))
    _name(both, "axis", list(axes))
    _table(folder / "weights.parquet", both)
    rows = [
        {"timestep": float(t), **stats.row(i)}
        for stats in heads.values()
        for i, t in enumerate(stats.timesteps)
    ]
    if rows:
        _table(folder / "attention.parquet", _columns(rows))
    arrays: dict[str, np.ndarray] = {"edges": bins.edges().numpy()}
    for i, stats in enumerate(inputs.values()):
        arrays |= {f"input.{i}.{name}": getattr(stats, name) for name in _ARRAYS}
    for i, weight in enumerate(weights.values()):
        arrays[f"weight.{i}.histogram"] = weight.histogram
    for i, head in enumerate(heads.values()):
        arrays |= {f"attention.{i}.{name}": getattr(head, name) for name in _HEADS}
    with replacing(folder / "histograms.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    described = {
        "format": FORMAT, "settings": settings,
        "inputs": [_plain(s, ("layer", "tensor", "kind", "split", "timesteps")) for s in inputs.values()],
        "weights": [_plain(w, ("layer", "shape", "threshold")) for w in weights.values()],
        "attention": [_plain(h, ("module", "kind", "timesteps")) for h in heads.values()],
    }  # fmt: skip
    text = json.dumps(described, indent=1, sort_keys=True) + "\n"
    write_text(folder / "observation.json", text)
    return folder


def load(folder: str | Path) -> Pieces:
    """Read the pieces of an observation.

    Raises
    ------
    MissingDataError
        There is none, or a file of it is missing or damaged.
    """
    folder = Path(folder)
    head = folder / "observation.json"
    if not head.is_file():
        raise MissingDataError(f"no observation at {folder}: make one with quant.observe(...).save(folder)")
    try:
        described = json.loads(head.read_text(encoding="utf-8"))
        with np.load(folder / "histograms.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _rebuild(described, arrays, folder)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise MissingDataError(
            f"the observation at {folder} is damaged ({' '.join(str(error).split())[:120]}): observe again"
        ) from None


def _rebuild(described: dict[str, Any], arrays: dict[str, np.ndarray], folder: Path) -> Pieces:
    import pyarrow.parquet as pq

    table = {
        n: c.to_numpy() for n, c in _named(pq.read_table(folder / "channels.parquet")) if n in CHANNEL_FIELDS
    }
    inputs, start = {}, 0
    for i, entry in enumerate(described["inputs"]):
        mine: dict[str, Any] = {name: arrays[f"input.{i}.{name}"] for name in _ARRAYS}
        shape = (len(entry["timesteps"]), len(mine["channel_histogram"]))
        stop = start + shape[0] * shape[1]
        channel = {name: table[name][start:stop].reshape(shape) for name in CHANNEL_FIELDS}
        entry["timesteps"] = np.asarray(entry["timesteps"], np.float64)
        stats = TensorStats(channel=channel, **entry, **mine)
        inputs[stats.key], start = stats, stop
    table = {
        n: c.to_numpy() for n, c in _named(pq.read_table(folder / "weights.parquet")) if n in CHANNEL_FIELDS
    }
    weights, start = {}, 0
    for i, entry in enumerate(described["weights"]):
        shape = tuple(entry.pop("shape"))
        parts: dict[str, Any] = {}
        for axis, size in (("output", shape[0]), ("input", shape[1])):
            parts[axis] = {name: table[name][start : start + size] for name in CHANNEL_FIELDS}
            start += size
        histogram = arrays[f"weight.{i}.histogram"]
        weights[entry["layer"]] = WeightStats(shape=shape, histogram=histogram, **parts, **entry)
    heads = {}
    for i, entry in enumerate(described["attention"]):
        entry["timesteps"] = np.asarray(entry["timesteps"], np.float64)
        mine = {name: arrays[f"attention.{i}.{name}"] for name in _HEADS}
        heads[entry["module"]] = AttentionStats(**entry, **mine)
    return described["settings"], inputs, weights, heads


def _channel_columns(index: int, stats: TensorStats) -> dict[str, Any]:
    times, channels = stats.channel["min"].shape
    code = np.full(times * channels, index, np.int32)
    return {
        "layer": code, "tensor": code, "timestep": np.repeat(stats.timesteps, channels),
        "channel": np.tile(np.arange(channels, dtype=np.int32), times),
        **{name: stats.channel[name].reshape(-1) for name in CHANNEL_FIELDS},
    }  # fmt: skip


def _weight_columns(index: int, weight: WeightStats, axis: str) -> dict[str, Any]:
    found = getattr(weight, axis)
    count = len(found["min"])
    codes = {"layer": np.full(count, index, np.int32), "axis": np.full(count, axis == "input", np.int32)}
    return {**codes, "channel": np.arange(count, dtype=np.int32), **found}


def _name(columns: dict[str, Any], field: str, names: list[str]) -> None:
    """Replace codes by the names they stand for, stored once each."""
    import pyarrow as pa

    columns[field] = pa.DictionaryArray.from_arrays(columns[field], names)


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _named(table: Any) -> list[tuple[str, Any]]:
    return list(zip(table.column_names, table.columns, strict=True))


def _table(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def _plain(stats: Any, names: tuple[str, ...]) -> dict[str, Any]:
    known = {f.name for f in fields(stats)}
    values = {name: getattr(stats, name) for name in names if name in known}
    return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in values.items()}
