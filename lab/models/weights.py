"""Weight files before they are read: which ones a folder has, their dtype, codes instead of weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import InputError, one_line
from lab.files import hash_file
from lab.models.architecture import read_json
from lab.models.kinds import OTHER, PICKLED, refuse_adapters
from lab.runs.folder import config_hash

if TYPE_CHECKING:
    import torch

NAME = "diffusion_pytorch_model"
#: Floating dtypes of safetensors that a model can be read in, widest first.
FLOATS = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_WHOLE = {"I64", "I32", "I16", "BOOL"}  # of indices and counters
#: Last parts of names that only layers of a quantized model have: ours, and those of Nunchaku and the like.
_CODES = {"codes", "weight_scale", "qweight", "wscales", "wzeros", "qzeros", "smooth_factor", "weight_packed"}


def weight_files(folder: Path) -> list[Path]:
    """Find the safetensors that diffusers would read from a model's folder.

    Raises
    ------
    InputError
        There are none, and the message says what there is; or a shard is not there.
    """
    index = folder / f"{NAME}.safetensors.index.json"
    if (folder / f"{NAME}.safetensors").is_file():
        return [folder / f"{NAME}.safetensors"]
    if index.is_file():
        table = read_json(index).get("weight_map")
        if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
            raise InputError(f"{index} has no weight_map: fetch it again")
        files = [folder / name for name in sorted(set(table.values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise InputError(f"{folder} lacks {missing[0]} ({len(missing)} of {len(files)} shards): fetch it")
        return files
    variants = sorted(p.name for p in folder.glob("*.safetensors"))
    if variants:
        raise InputError(
            f"{folder} has no {NAME}.safetensors, only {', '.join(variants)[:200]}: give one of these files "
            f"as the model, with --architecture {folder}"
        )
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED)
    if pickled:
        raise InputError(
            f"{folder} has only pickled weights ({', '.join(pickled)[:200]}), which are never opened: "
            "convert them to safetensors, with save_pretrained"
        )
    others = sorted(p for p in folder.iterdir() if p.suffix in OTHER and p.suffix not in (".yaml", ".yml"))
    if others:
        raise InputError(f"{folder} has no safetensors, and {others[0].name} is {OTHER[others[0].suffix]}")
    raise InputError(f"{folder} has a config and no weights: {NAME}.safetensors is missing; fetch the model")


def stored_dtype(files: Iterable[Path]) -> torch.dtype:
    """Widest floating dtype in weight files; refuses codes in place of weights.

    Raises
    ------
    InputError
        A file is quantized already, has an adapter, is of another dtype, or no safetensors.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    found = set()
    for path in files:
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                kinds = {name: str(file.get_slice(name).get_dtype()) for name in file.keys()}
                refuse_codes(path, file.metadata() or {}, kinds)
                refuse_adapters(path, kinds)
        except SafetensorError as error:
            raise InputError(
                f"{path} cannot be read as a diffusers model: it is truncated or not a safetensors file "
                f"({one_line(error)}); fetch it again"
            ) from None
        found |= set(kinds.values())
    return next((getattr(torch, name) for kind, name in FLOATS.items() if kind in found), torch.float32)


def refuse_codes(path: Path, metadata: dict[str, str], kinds: dict[str, str]) -> None:
    """Refuse a quantized file, and tensors that are no plain floating point.

    Parameters
    ----------
    path : Path
    metadata : dict
        Of the header.
    kinds : dict
        Dtype by tensor, in safetensors' words.

    Raises
    ------
    InputError
        One of these.
    """
    if "brainit_lab_quant" in metadata:
        raise InputError(
            f"{path} holds a quantized model already: load it with quant.load into its bare architecture"
        )
    code = next((name for name in kinds if name.rpartition(".")[2] in _CODES), None)
    if code is not None or "quantization_config" in metadata:
        raise InputError(
            f"{path} holds a quantized model already ({code or 'quantization_config in its header'}): "
            "give the full-precision model"
        )
    wrong = next(
        (
            name for name, kind in kinds.items()
            if kind not in FLOATS and (kind not in _WHOLE or name.endswith((".weight", ".bias")))
        ),
        None,
    )  # fmt: skip
    if wrong is not None:
        raise InputError(
            f"{path}: {wrong!r} is {kinds[wrong]}, not float16, bfloat16 or float32: the model is quantized "
            "already or of no plain floating point; convert it first"
        )


def refuse_quantized_folder(folder: Path) -> None:
    """Refuse a folder that ``brainlab quantize`` wrote, or one of a LoRA, in place of "no config.json"."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                refuse_codes(path, file.metadata() or {}, dict.fromkeys(file.keys(), "F32"))
                refuse_adapters(path, file.keys())
        except SafetensorError:
            continue


def fingerprint(files: Iterable[Path]) -> str:
    """Short hash over names and contents of files; another one is another model."""
    return config_hash({path.name: hash_file(path) for path in sorted(files)})
