"""Results of a run's steps on disk, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.files import hash_file, plain, read_npz, replacing, write_npz, write_text


class StepCache:
    """Outputs of named steps: arrays in npz, state dicts in safetensors, everything else in JSON.

    The JSON file is written last and carries the hashes of the others; a step without it, or with another
    hash, was not finished and is computed again.

    Parameters
    ----------
    folder : Path
        Where the files of all steps lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, name: str, output: Mapping[str, Any], seconds: float) -> None:
        """Store one step's output.

        Parameters
        ----------
        name : str
            Name of the step; letters, digits, ``.``, ``_`` and ``-``.
        output : mapping
            Values are arrays (stored exactly), dicts of torch tensors (state dicts), or JSON-able.
        seconds : float
            What the step took, kept for the run's total.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays = {key: value for key, value in output.items() if _is_array(value)}
        states = {key: value for key, value in output.items() if _is_state(value)}
        rest = {key: value for key, value in output.items() if key not in arrays and key not in states}
        record: dict[str, Any] = {"seconds": seconds, "values": rest, "states": sorted(states)}
        if arrays:
            write_npz(self._file(name, "npz"), arrays)
            record["npz"] = hash_file(self._file(name, "npz"))
        for key, state in states.items():
            _write_state(self._file(f"{name}.{key}", "safetensors"), state)
            record[f"state.{key}"] = hash_file(self._file(f"{name}.{key}", "safetensors"))
        write_text(self._file(name, "json"), json.dumps(record, default=plain))

    def load(self, name: str) -> dict[str, Any] | None:
        """Return a stored output, or None where there is none that is whole."""
        record = self._record(name)
        if record is None:
            return None
        output: dict[str, Any] = dict(record["values"])
        if "npz" in record:
            file = self._file(name, "npz")
            if not file.is_file() or hash_file(file) != record["npz"]:
                return None
            output.update(read_npz(file))
        for key in record["states"]:
            file = self._file(f"{name}.{key}", "safetensors")
            if not file.is_file() or hash_file(file) != record[f"state.{key}"]:
                return None
            output[key] = _read_state(file)
        return output

    def seconds(self) -> float:
        """Return what all stored steps took together."""
        records = (self._record(file.stem) for file in sorted(self.folder.glob("*.json")))
        return sum(record["seconds"] for record in records if record)

    def _record(self, name: str) -> dict[str, Any] | None:
        file = self._file(name, "json")
        if not file.is_file():
            return None
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, UnicodeDecodeError):
            return None  # a damaged disk, not a killed run: compute it again

    def _file(self, name: str, suffix: str) -> Path:
        return self.folder / f"{name}.{suffix}"


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(hasattr(v, "requires_grad") for v in value.values())
    )


def _write_state(path: Path, state: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({key: value.detach().cpu().contiguous().clone() for key, value in state.items()}, temporary)


def _read_state(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path)
