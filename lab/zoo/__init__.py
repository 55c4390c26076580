"""The small models that ship with the project: names, loading, cards. Importing this imports no torch."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

HOME = Path(__file__).parent
_IMPORTING = threading.Lock()
_SUMMARY = {
    "autoencoder-64": "KL autoencoder, 64x64 picture <-> 8x16x16 latent",
    "encoder-64": "patch encoder, 64x64 picture -> a global token and 16 patch tokens of width 192",
    "structure-64": "structural feature maps at 16x16, 8x8, 4x4 and their feed-forward inverse",
    "unet-64": "conditional latent U-Net (UNet2DConditionModel), rectified flow, cross-attention on tokens",
    "dit-64": "conditional latent DiT (PixArtTransformer2DModel), rectified flow, cross-attention on tokens",
    "watermark-64": "reads the 48 message bits that autoencoder-64 writes into pictures with the shipped key",
    "video-dit": "clips of 8 frames from a first frame's tokens and a motion (WanTransformer3DModel)",
    "shared-64": "Brain Interaction Transformer for all subjects: anybody's fMRI -> tokens for the denoisers",
}
DECODERS = ("unet-64", "dit-64")
"""Denoisers that draw one picture from the encoder's tokens: what brain activity is decoded through."""
VIDEO = ("video-dit",)
DENOISERS = (*DECODERS, *VIDEO)
_GUIDANCE = {"video-dit": 1.0}
"""Where it is not 2: a first frame and a motion leave little to be guided to."""


def names() -> list[str]:
    """Names of the models whose weights are here."""
    return [name for name in _SUMMARY if weight_file(name).is_file()]


def summary(name: str) -> str:
    """One line on what a model is."""
    return _SUMMARY[_known(name)]


def weight_file(name: str) -> Path:
    """Where the weights of a model are kept."""
    return HOME / "weights" / f"{_known(name)}.safetensors"


def needed_file(name: str) -> Path:
    """Return the weight file of a model; refuses where there is none.

    Raises
    ------
    InputError, MissingDataError
        Unknown model, or no weights.
    """
    from lab.errors import MissingDataError

    path = weight_file(name)
    if not path.is_file():
        raise MissingDataError(
            f"model {name!r} has no weights at {path.name} (there: {', '.join(names()) or 'none'}); "
            f"train it with: brainlab zoo train {name}"
        )
    return path


def info(name: str) -> dict[str, Any]:
    """Return a model's card (``cards/NAME.json``): data, steps, seed, device, measured quality."""
    import json

    card = HOME / "cards" / f"{_known(name)}.json"
    return json.loads(card.read_text()) if card.is_file() else {}


def load(name: str, device: str = "cpu") -> nn.Module:
    """Return a model of the zoo in evaluation mode, float32, on ``device``. A fresh copy each time."""
    return load_file(needed_file(name))[0].to(device)


def null_tokens(name: str) -> torch.Tensor:
    """Return a denoiser's learned null condition, (17, 192) or (82, 192): what guidance pushes away from."""
    from lab.zoo.io import load_extra

    rows = load_extra(needed_file(name))["null"]
    if name not in VIDEO:
        return rows
    from lab.zoo.video.clips import N_TOKENS

    return rows[[*range(len(rows)), *[-1] * (N_TOKENS - len(rows))]]  # patches share the last row


def usual_guidance(name: str) -> float:
    """Return the scale of classifier-free guidance that a shipped denoiser is sampled with by default."""
    return _GUIDANCE.get(name, 2.0)


def load_file(path: Path) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return the model that a weight file of the zoo's form holds, float32, and the file's extras."""
    from lab.zoo.io import load_weights

    return load_weights(path, _classes())


def prepare() -> None:
    """Import what models are made of; threads take turns: diffusers cannot be imported by two at once."""
    _classes()


def _classes() -> dict[str, type]:
    with _IMPORTING:
        return _imported()


@lru_cache(maxsize=1)
def _imported() -> dict[str, type]:
    from diffusers import PixArtTransformer2DModel, UNet2DConditionModel, WanTransformer3DModel

    from brainit.network.shared import SharedNetwork
    from lab.zoo.models.autoencoder import LatentAutoencoder
    from lab.zoo.models.encoder import PatchEncoder
    from lab.zoo.models.structure import StructureNet
    from quant.adapters.watermark.extractor import Extractor

    ours = (LatentAutoencoder, PatchEncoder, StructureNet, SharedNetwork, Extractor)
    known = (*ours, UNet2DConditionModel, PixArtTransformer2DModel, WanTransformer3DModel)
    return {c.__name__: c for c in known}


def _known(name: str) -> str:
    from lab.errors import InputError

    if name not in _SUMMARY:
        raise InputError(
            f"unknown zoo model {name!r}; allowed: {', '.join(_SUMMARY)}; see: brainlab zoo list"
        )
    return name
