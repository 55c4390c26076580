"""Files that are whole or not there; tensors and a JSON header in one safetensors file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from brainit.errors import InputError, MissingDataError

HEADER = "brainit"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path; it takes the name ``path`` on success and is removed on any failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        temporary.touch()
        usual = temporary.stat().st_mode
        temporary.unlink()
        yield temporary
        temporary.chmod(usual)  # safetensors makes files that nobody else of a shared folder can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file at once."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_state(path: str | Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> None:
    """Write atomically: after a kill there is the old file or the new one, never half of it."""
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    with replacing(Path(path)) as temporary:
        save_file(plain, str(temporary), metadata={HEADER: json.dumps(header, sort_keys=True)})


def read_state(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read tensors and header written by :func:`write_state`."""
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(f"no file {path}; train the decoder first")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); delete it and train again"
        ) from None
    if header is None:
        raise InputError(f"{path} was not written by this project; give a decoder that brainit saved")
    return tensors, header


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Flatten an optimizer's state to named tensors."""
    return {
        f"optimizer/{index}/{key}": value
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Undo :func:`optimizer_tensors` into an optimizer over the same parameters."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, name = key.split("/")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def fingerprint(settings: Any, arrays: Iterable[np.ndarray | torch.Tensor]) -> str:
    """Hash of settings and data, so that a checkpoint is never continued with others."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for array in arrays:
        array = np.ascontiguousarray(np.asarray(array))
        digest.update(str((array.shape, array.dtype.str)).encode())
        digest.update(array.tobytes() if array.dtype.kind != "O" else repr(array.tolist()).encode())
    return digest.hexdigest()
