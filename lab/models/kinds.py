"""Kinds of files that are not models to open: what they are, and what to give in their place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from lab.errors import InputError

PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
OTHER = {
    ".gguf": "a GGUF file, whose weights are quantized already: give the full-precision model",
    ".onnx": "an ONNX graph, which is not read: give the model that it was exported from",
    ".engine": "an engine that TensorRT built, which is not read: give the model it was built from",
    ".plan": "an engine that TensorRT built, which is not read: give the model it was built from",
    ".msgpack": "a file of Flax: convert it with from_pretrained(..., from_flax=True) and save_pretrained",
    ".h5": "a file of HDF5, which is not read as a model: convert it with save_pretrained",
    ".npz": "a file of arrays, which is not read as a model: write it as safetensors",
    ".yaml": "settings, not weights: give the model's folder or its .safetensors file",
    ".yml": "settings, not weights: give the model's folder or its .safetensors file",
    ".zip": "an archive: unpack it and give the folder",
}
SUFFIXES = {".safetensors", ".json", *PICKLED, *OTHER}
"""Of names that mean a file, never a model on the hub."""

_POINTER = b"version https://git-lfs"
_ADAPTER = re.compile(
    r"(^|\.)base_layer\.|[._]lora[._]?(A|B|up|down|linear_layer)\b|^lora_(unet|te)|\.(lora|hada|lokr|oft|dora)_"
)


def refuse_kind(path: Path) -> None:
    """Refuse a file that is no safetensors file, by its name and its first bytes.

    Raises
    ------
    InputError
        Says what it is and what to give.
    """
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(_POINTER):
        raise InputError(f"{path} is a pointer of git LFS, not the file itself: fetch it with git lfs pull")
    if start.startswith(b"GGUF"):
        suffix = ".gguf"
    if suffix == ".safetensors":
        return
    if suffix == ".json":
        what = "lists a model's shards" if path.name.endswith(".index.json") else "has settings, not weights"
        raise InputError(f"{path} {what}: give its folder, {path.parent}, or a .safetensors file")
    if suffix in PICKLED:
        raise InputError(f"{path} is not a .safetensors file; pickled weights are never opened: convert them")
    known = OTHER.get(suffix)
    if known:
        raise InputError(f"{path} is {known}")
    raise InputError(
        f"{path} is not a .safetensors file: give one, with --architecture, or a folder that "
        "save_pretrained wrote"
    )


def refuse_adapters(path: Path, names: Iterable[str]) -> None:
    """Refuse a LoRA, and weights that were saved with an adapter in them, by the tensors' names.

    Raises
    ------
    InputError
        One of these.
    """
    every = list(names)
    found = [name for name in every if _ADAPTER.search(name)]
    if not found:
        return
    plain = [name for name in every if name not in set(found) and not name.endswith(".alpha")]
    if not plain:
        raise InputError(
            f"{path} is a LoRA, not a model: give the model that it is for; in Python, quant.attach_lora "
            "puts the LoRA on it"
        )
    raise InputError(
        f"{path} was saved with an adapter in it ({len(found)} tensors, the first is {found[0]!r}): merge "
        "the adapter with model.fuse_lora(), take it out with model.unload_lora(), and save the model again"
    )


def refuse_adapter_folder(folder: Path) -> None:
    """Refuse a folder that peft wrote."""
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{folder} is a LoRA that peft wrote, not a model: give the model that it is for; in Python, "
            "quant.attach_lora puts the LoRA on it"
        )
