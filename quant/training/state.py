"""Work in progress on disk, under keys: what a method that trains goes on from after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from quant.errors import InputError
from quant.io import replacing, write_text

_OWNER = "state.json"
_VALUES = "values"
_BYTES = torch.uint8


class Saved(NamedTuple):
    """What was kept under a key."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]
    """JSON types."""


class State:
    """A folder of checkpoints that belongs to one piece of work.

    Parameters
    ----------
    folder : Path or None
        Made if it is not there; None keeps nothing.
    owner : dict
        What the work is, JSON types: config, seed, hashes of recording and weights. Only the same work may
        go on in the folder.

    Raises
    ------
    InputError
        The folder holds another work, or is a file.
    """

    def __init__(self, folder: str | Path | None = None, owner: dict[str, Any] | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        wanted = json.loads(json.dumps(owner or {}))
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file; training is kept in a folder: choose another path")
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / _OWNER
        if not file.is_file():
            if any(self.folder.iterdir()):
                raise InputError(f"{self.folder} holds other files: training is kept in a folder of its own")
            write_text(file, json.dumps(wanted, indent=1, sort_keys=True) + "\n")
            return
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{file} is damaged: delete {self.folder} to train from the start") from None
        _compare(self.folder, known, wanted)

    def get(self, key: str) -> Saved | None:
        """Return what was kept under a key, None if nothing was.

        Raises
        ------
        InputError
            The file is damaged.
        """
        if self.folder is None or not self._file(key).is_file():
            return None
        try:
            with safe_open(self._file(key), framework="pt", device="cpu") as file:
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
                values = json.loads((file.metadata() or {})[_VALUES])
        except (SafetensorError, KeyError, ValueError):
            raise InputError(
                f"{self._file(key)} is damaged: delete {self.folder} to train from the start"
            ) from None
        return Saved(tensors, values)

    def put(self, key: str, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Keep tensors and JSON values under a key, in place of what was there; whole or not at all."""
        if self.folder is None:
            return
        kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        target = self._file(key)
        with replacing(target) as temporary:
            save_file(kept, temporary, metadata={_VALUES: json.dumps(values, sort_keys=True)})

    def remove(self) -> None:
        """Delete the folder, as `remove` does."""
        if self.folder is not None:
            remove(self.folder)

    def _file(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"


def remove(folder: Path) -> None:
    """Delete a state's folder; what says whose it is goes last, so that a stop on the way loses nothing."""
    for file in sorted(folder.iterdir(), key=lambda file: file.name == _OWNER):
        file.unlink()
    folder.rmdir()


def _compare(folder: Path, known: Any, wanted: dict[str, Any]) -> None:
    """Name the first thing that differs."""
    flat, asked = _flat(known if isinstance(known, dict) else {}), _flat(wanted)
    for name in sorted({*flat, *asked}):
        if flat.get(name) != asked.get(name):
            raise InputError(
                f"{folder} holds training with {name} = {flat.get(name)!r:.60}, asked for "
                f"{asked.get(name)!r:.60}: use another folder, or delete this one"
            )


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in data.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out
