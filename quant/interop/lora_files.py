"""Read foreign LoRAs: peft's and diffusers' names, alpha, what belongs to other models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from quant.errors import InputError, MissingDataError

DOWN = (".lora_A", ".lora.down", ".lora_linear_layer.down", "_lora.down", ".lora_down")
UP = (".lora_B", ".lora.up", ".lora_linear_layer.up", "_lora.up", ".lora_up")
PREFIXES = ("base_model.model.", "unet.", "transformer.", "diffusion_model.")
OTHERS = ("text_encoder", "lora_te", "text_model")
"""Entries of a pipeline's LoRA that belong to its text encoders."""

PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


@dataclass
class Factors:
    """Low-rank factors of one layer as they stand in the file, and its alpha.

    Attributes
    ----------
    down, up : tensor or None
        (r, in) and (out, r), or with trailing kernel axes.
    alpha : float or None
        The product counts alpha / r times; r where a file says nothing.
    """

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None


@dataclass
class LoraFile:
    """Factors by the file's layer names, and names of entries for text encoders."""

    factors: dict[str, Factors]
    ignored: list[str] = field(default_factory=list)
    label: str = "the LoRA"


def read_lora(source: Mapping[str, Tensor] | str | Path, alpha: float | None = None) -> LoraFile:
    """Sort a LoRA's tensors by layer.

    Parameters
    ----------
    source : dict of str to tensor, path of a safetensors file, or folder that peft wrote
    alpha : float, optional
        For files that say nothing themselves.

    Raises
    ------
    MissingDataError
        No such file.
    InputError
        Not safetensors, or entries that are no plain LoRA (DoRA, LoHa, LoKr, Tucker, biases).
    """
    label = "the LoRA"
    if isinstance(source, Mapping):
        tensors: dict[str, Tensor] = dict(source)
        settings: dict[str, Any] = {}
    else:
        tensors, settings, label = _open(Path(source))
    default = alpha if alpha is not None else _alpha_of(settings, label)
    found: dict[str, Factors] = {}
    ignored = []
    for key, tensor in tensors.items():
        if key.startswith(OTHERS):
            ignored.append(key)
            continue
        stem = key.removesuffix(".weight").removesuffix(".default")
        name, part = _split(stem)
        if part is None:
            raise InputError(f"{label}: {key!r} is no part of a plain LoRA (lora_A, lora_B, down, up, alpha)")
        own = found.setdefault(name, Factors(alpha=default))
        if part == "alpha":
            if tensor.numel() != 1:
                raise InputError(f"{label}: {key!r} has {tensor.numel()} values; alpha is one number")
            own.alpha = float(tensor)
        else:
            setattr(own, part, tensor)
    if not found:
        raise InputError(f"{label} has no entry for a denoiser ({len(ignored)} for text encoders)")
    return LoraFile(found, ignored, label)


def _split(stem: str) -> tuple[str, str | None]:
    """Layer name without prefix, and which part: down, up, alpha; None if it is none of them."""
    for part, endings in (("down", DOWN), ("up", UP), ("alpha", (".alpha",))):
        for ending in endings:
            if stem.endswith(ending):
                return _bare(stem[: -len(ending)]), part
    return stem, None


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    # attention processors of old diffusers: attn1.processor.to_q_lora.down -> attn1.to_q
    head, _, leaf = name.rpartition(".processor.")
    if head:
        return f"{head}.{'to_out.0' if leaf == 'to_out' else leaf}"
    return name


def _open(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    settings: dict[str, Any] = {}
    if path.is_dir():
        config = path / "adapter_config.json"
        if config.is_file():
            settings = _json(config.read_text(encoding="utf-8"), config)
        names = ("adapter_model.safetensors", "pytorch_lora_weights.safetensors")
        path = next((path / name for name in names if (path / name).is_file()), path / names[0])
    if not path.is_file():
        raise MissingDataError(f"no LoRA at {path}: give a safetensors file or a folder that peft wrote")
    if path.suffix.lower() in PICKLED:
        raise InputError(f"{path} is pickled, which is never opened: convert it to safetensors")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise InputError(
            f"{path} is truncated or not a safetensors file ({error}): a LoRA is one, or a folder with one"
        ) from None
    if not settings and "lora_adapter_metadata" in metadata:
        text = _json(metadata["lora_adapter_metadata"], path)
        # diffusers writes one set for each part of the pipeline: transformer.r, unet.lora_alpha, ...
        settings = {key.rpartition(".")[2]: v for key, v in text.items() if not key.startswith(OTHERS)}
    return tensors, settings, str(path)


def _json(text: str, where: Path) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        raise InputError(f"{where}: its settings are not JSON: fetch the LoRA again") from None
    return data if isinstance(data, dict) else {}


def _alpha_of(settings: dict[str, Any], label: str) -> float | None:
    """Find the alpha that holds for all layers, by peft's config."""
    if settings.get("use_dora"):
        raise InputError(f"{label} is a DoRA, not a plain LoRA: merge it into the model before quantizing")
    if settings.get("alpha_pattern") or settings.get("use_rslora"):
        raise InputError(
            f"{label} scales its layers by a rule (alpha_pattern or use_rslora): save it with an alpha each"
        )
    value = settings.get("lora_alpha")
    return None if value is None else float(value)
