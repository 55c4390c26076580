"""Metrics as a file: flat, sorted, rounded; and whether two such files say the same."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lab.errors import InputError, MissingDataError
from lab.runs.settings import read_settings

#: The one key of metrics.json that two runs of the same configuration may differ in.
TIMING = ("seconds_total",)
DIGITS = 6


def tidy(metrics: Mapping[str, Any], digits: int = DIGITS) -> dict[str, Any]:
    """Return metrics ready for the file: flat, sorted by name, floats to ``digits`` significant digits.

    Rounding takes away the last bits, in which sums differ between thread counts, and nothing a reader uses.
    NaN and infinities become None, since JSON has no word for them.

    Raises
    ------
    TypeError
        If a value is not a number, text, bool or None (metrics.json is flat; use dots in names).
    """
    return {key: _scalar(key, metrics[key], digits) for key in sorted(metrics)}


def equal_metrics(first: Path, second: Path, ignore: Collection[str] = TIMING) -> list[str]:
    """Compare two metrics files and return one line a difference; an empty list means equal.

    Parameters
    ----------
    first, second : Path
        metrics.json files, or run folders that hold one.
    ignore : collection of str
        Names that may differ; by default only the wall-clock time.

    Raises
    ------
    MissingDataError
        If there is no such file yet.
    """
    one, two = read_metrics(first), read_metrics(second)
    lines = []
    for key in sorted((set(one) | set(two)) - set(ignore)):
        if key not in one or key not in two:
            lines.append(f"{key}: only in {first if key in one else second}")
        elif one[key] != two[key]:
            lines.append(f"{key}: {one[key]} != {two[key]}")
    return lines


def read_metrics(path: Path) -> dict[str, Any]:
    """Read metrics.json from a run folder or a path to the file itself."""
    file = path / "metrics.json" if path.is_dir() else path
    if not file.is_file():
        settings = file.parent / "config.yaml"
        if settings.is_file() and "dataset" not in read_settings(settings):
            raise InputError(
                f"{file.parent} is a folder of another command; give one that brainlab brain reconstruct "
                "wrote"
            )
        # a run that was stopped goes on with its own settings alone
        own = f"--config {settings} " if settings.is_file() else ""
        raise MissingDataError(
            f"{file}: no metrics yet; run brainlab brain reconstruct {own}--out {file.parent} first"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        way = "remove it and run the same command again" if file != path else "give a run folder"
        raise InputError(f"{file}: not a JSON file ({error}); {way}") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected names and values, found a {type(content).__name__}")
    return content


def flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into dotted names: ``{"train": {"seed": 1}}`` to ``{"train.seed": 1}``."""
    out: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            out.update(flat(value, f"{name}."))
        else:
            out[name] = value
    return out


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> list[str]:
    """List the settings in which two configurations differ, as ``name: old -> new``.

    What `old` lacks and `new` has counts as its value in `defaults`, where that has one.
    """
    one, two = flat(old), flat(new)
    later = flat(defaults or {})
    one = {key: later[key] for key in two.keys() & later.keys()} | one
    absent = object()
    return [
        f"{key}: {_word(one.get(key, absent), absent)} -> {_word(two.get(key, absent), absent)}"
        for key in sorted(set(one) | set(two))
        if one.get(key, absent) != two.get(key, absent)
    ]


def _word(value: Any, absent: object) -> str:
    return "(not set)" if value is absent else json.dumps(value, default=str)


def _scalar(key: str, value: Any, digits: int) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        rounded = float(f"{value:.{digits}g}")
        return 0.0 if rounded == 0 else rounded  # -0.0 and 0.0 are the same number but not the same text
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(
        f"metric {key!r} is a {type(value).__name__}; metrics.json is flat, with numbers and text only"
    )
