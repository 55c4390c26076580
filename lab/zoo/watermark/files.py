"""The watermark's files: the extractor's weights, and keys, which are LoRAs of the autoencoder's decoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lab import zoo
from lab.errors import InputError, MissingDataError
from lab.files import hash_file
from lab.zoo.io import load_weights
from quant.adapters.watermark.extractor import Extractor
from quant.adapters.watermark.lowrank import merge_, read_about, read_deltas
from quant.adapters.watermark.verify import parse_message

EXTRACTOR = zoo.HOME / "weights" / "watermark-64.safetensors"
KEY = zoo.HOME / "weights" / "watermark-64-key.safetensors"
AUTOENCODER = "autoencoder-64"


@dataclass(frozen=True)
class Key:
    """A message, where its factors lie, and which extractor reads it."""

    file: Path
    message: str
    about: dict[str, Any]


def load_extractor(file: Path = EXTRACTOR, device: str = "cpu") -> Extractor:
    """Read an extractor.

    Raises
    ------
    MissingDataError
        No such file.
    InputError
        Another model, or a damaged file.
    """
    if not file.is_file():
        raise MissingDataError(f"no extractor at {file}: train one with brainlab watermark train")
    try:
        with safe_open(file, framework="pt") as opened:
            kind = (opened.metadata() or {}).get("class")
        if kind != Extractor.__name__:
            raise InputError(f"{file} holds {kind or 'no model of ours'}, not a watermark's extractor")
        model, _ = load_weights(file, {Extractor.__name__: Extractor})
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is damaged ({' '.join(str(error).split())[:80]}): train it again") from None
    return model.requires_grad_(False).to(device)


def load_key(file: Path, extractor: Path, bits: int) -> Key:
    """Read a key's message; the factors are read by `marked_autoencoder`.

    Raises
    ------
    MissingDataError
        No such file.
    InputError
        A damaged file, a LoRA without a message, a message of another length, or of another extractor.
    """
    about = read_about(file)
    message = parse_message(about["message"], bits)
    known = about.get("extractor")
    if known is not None and known != hash_file(extractor):
        raise InputError(
            f"{file} was trained against another extractor ({known[:12]}): give that one with --extractor"
        )
    return Key(file, message, about)


def marked_autoencoder(file: Path, device: str = "cpu") -> Any:
    """Return the shipped autoencoder with a key's factors merged into its decoder.

    Raises
    ------
    InputError
        The factors do not fit, or were trained on other weights.
    """
    model, known = zoo.load(AUTOENCODER), read_about(file).get("base")
    if known is not None and known != hash_file(zoo.weight_file(AUTOENCODER)):
        raise InputError(
            f"{file} was trained on other weights of {AUTOENCODER} ({known[:12]}): train it again"
        )
    merge_(model, read_deltas(file, model))
    return model.eval().to(device)
