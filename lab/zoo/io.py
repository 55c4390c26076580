"""Zoo weights on disk: half-precision safetensors whose metadata holds the class and its config.

Beside them, whose a folder of work in progress is.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from lab.errors import InputError
from lab.files import hash_file, replacing, sort_metadata, write_json

_EXTRA = "extra."


def save_weights(module: nn.Module, path: Path, extra: dict[str, torch.Tensor] | None = None) -> None:
    """Write a module's state in float16 with its class name and config; ``extra`` goes under ``extra.``.

    Raises
    ------
    InputError
        Weights that are not finite in half precision; nothing is written over what is there.
    """
    state = {k: _half(v) for k, v in module.state_dict().items()}
    state |= {f"{_EXTRA}{k}": _half(v) for k, v in (extra or {}).items()}
    bad = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if bad:
        raise InputError(
            f"{len(bad)} of {len(state)} weights are not finite in half precision (first {bad[0]}), so "
            f"{path.name} was not written: train with a lower learning rate"
        )
    config = {k: v for k, v in dict(module.config).items() if not k.startswith("_")}
    meta = {"format": "pt", "class": type(module).__name__, "config": json.dumps(config, default=list)}
    with replacing(path) as temporary:
        save_file(state, temporary, metadata=meta)
        sort_metadata(temporary)


def load_weights(path: Path, classes: dict[str, type]) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Build the module that a weight file describes, in float32; return it and the file's extras.

    Its class is looked up in ``classes`` only.

    Raises
    ------
    InputError
        The file is damaged, or holds nothing that this project wrote.
    """
    with _opened(path) as f:
        meta = f.metadata() or {}
        if meta.get("class") not in classes or "config" not in meta:
            raise InputError(
                f"{path} holds {meta.get('class') or 'no model of ours'}; allowed: {', '.join(classes)}"
            )
        tensors = {k: f.get_tensor(k) for k in f.keys() if not k.startswith(_EXTRA)}
    state = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    kind, config = classes[meta["class"]], json.loads(meta["config"])
    known = inspect.signature(kind).parameters
    module = kind(**{k: v for k, v in config.items() if k in known})
    if rest := {k: v for k, v in config.items() if k not in known}:
        module.register_to_config(**rest)  # what we state beyond the class's arguments, as a sample's size
    module.load_state_dict(state)
    return module.eval(), load_extra(path)


def load_extra(path: Path) -> dict[str, torch.Tensor]:
    """Return what a weight file holds besides its module, float32; nothing is built."""
    with _opened(path) as f:
        return {k.removeprefix(_EXTRA): f.get_tensor(k).float() for k in f.keys() if k.startswith(_EXTRA)}


def claim(started: Path, about: dict[str, Any], holds: str, states: Iterable[Path]) -> None:
    """Note what work in progress is made from, or refuse to go on with that of other settings.

    Parameters
    ----------
    started : Path
        Where it is noted.
    about : dict
        JSON types.
    holds : str
        What lies there, for the message.
    states : iterable of Path
        Work in progress; without any of it, or of what it is made from, everything goes.

    Raises
    ------
    InputError
        There is work of other settings.
    """
    about = json.loads(json.dumps(about))
    work = [state for state in states if state.is_file()]
    if work and started.is_file():
        there = json.loads(started.read_text(encoding="utf-8"))
        differ = sorted(k for k in about if k in there and there[k] != about[k])
        if differ:
            more = f" and {len(work) - 1} more" if len(work) > 1 else ""
            raise InputError(
                f"{started.parent} holds {holds} with another {', '.join(differ)}; give another --out, or "
                f"delete {work[0].name}{more}"
            )
    write_json(started, about)


def mark(*files: Path) -> str:
    """Short hash of weights by content."""
    return " ".join(hash_file(file)[:12] for file in files)


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise InputError(f"{path} is truncated or not a safetensors file ({error}); copy it again") from None


def _half(value: torch.Tensor) -> torch.Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if value.is_floating_point() else value
