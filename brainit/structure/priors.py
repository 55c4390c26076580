"""Priors over pictures: anything that can draw them.

A decoder's posterior is built on draws, so a prior is one method. Two are here: an array of pictures, and
the glyph model (``train_prior.py`` makes its weights), a small decoder network under a Gaussian mixture in
latent space:

    ``c ~ pi,  z ~ N(m_c, S_c),  picture = sigmoid(decoder(z))``.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from brainit.errors import InputError, MissingDataError
from brainit.structure.features import check_pictures, resize

_DRAW_BLOCK = 4000


@runtime_checkable
class Prior(Protocol):
    """A generative model of pictures."""

    name: str

    def draw(self, n: int, side: int, seed: int) -> np.ndarray:
        """Return n float32 pictures in 0..1 of shape (n, side, side[, 3]), equal for equal seeds."""
        ...


class ArrayPrior:
    """Pictures themselves as the prior, each equally likely.

    Parameters
    ----------
    pictures : array of shape (n, S, S) or (n, S, S, 3)
        In 0..1; must hold no test stimulus (:func:`exclude_near`).
    name : str
    """

    def __init__(self, pictures: np.ndarray, name: str = "pictures") -> None:
        self.pictures, self.name = check_pictures(pictures, "the prior's pictures"), name

    def draw(self, n: int, side: int, seed: int) -> np.ndarray:
        """Draw without replacement; all of them if fewer than n."""
        order = np.random.default_rng(seed).permutation(len(self.pictures))[:n]
        return resize(self.pictures[order], side)


class GlyphPrior:
    """The glyph model, loaded from a safetensors file.

    Parameters
    ----------
    path : path
        File written by :func:`brainit.structure.train_prior.train_prior`.

    Raises
    ------
    MissingDataError
        No such file.
    InputError
        The file is not a glyph prior.
    """

    def __init__(self, path: str | Path) -> None:
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise MissingDataError(
                f"no prior at {path}; give a glyph-prior.safetensors or an array of pictures"
            )
        try:
            with safe_open(str(path), framework="pt") as file:
                meta = file.metadata() or {}
                tensors = {k: file.get_tensor(k).float() for k in file.keys()}
        except SafetensorError as error:
            raise InputError(f"{path} is not a readable safetensors file ({error}); make it again") from error
        if meta.get("kind") != "glyph-prior":
            raise InputError(
                f"{path} holds {meta.get('kind')!r}, expected 'glyph-prior'; give the prior's weights"
            )
        self.info: dict[str, object] = json.loads(meta["info"])
        self.name = f"glyph prior ({path.name})"
        self.side = int(meta["side"])
        widths = json.loads(meta["widths"])
        self.decoder = glyph_decoder(widths)
        self.decoder.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("decoder.")})
        self.decoder.eval()
        self._weights, self._means, self._factors = (
            tensors[f"mixture.{k}"] for k in ("weights", "means", "factors")
        )

    @torch.no_grad()
    def draw(self, n: int, side: int, seed: int) -> np.ndarray:
        """Draw from the mixture and decode, on the CPU."""
        generator = torch.Generator().manual_seed(seed)
        part = torch.multinomial(self._weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self._means.shape[1], generator=generator)
        z = self._means[part] + torch.einsum("nij,nj->ni", self._factors[part], noise)
        pictures = torch.cat([torch.sigmoid(self.decoder(b)) for b in z.split(_DRAW_BLOCK)])
        pictures = (pictures - 1 / 255).clamp(0, 1)  # an empty background is exactly empty
        return resize(pictures.reshape(n, self.side, self.side).numpy(), side)


def glyph_decoder(widths: list[int]) -> nn.Sequential:
    """Build the decoder: linear layers of these widths with SiLU between, logits out."""
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def as_prior(prior: Prior | np.ndarray | str | Path) -> Prior:
    """Make a prior of an array of pictures, a path to glyph weights, or a prior."""
    if isinstance(prior, np.ndarray):
        return ArrayPrior(prior)
    return GlyphPrior(prior) if isinstance(prior, (str, Path)) else prior


def exclude_near(
    pictures: np.ndarray, stimuli: np.ndarray, *, threshold: float = 0.9, max_shift: int = 2
) -> tuple[np.ndarray, float]:
    """Find pictures that are no near duplicate of any stimulus.

    Two are near duplicates if their pixels correlate at ``threshold`` or more after some shift of up to
    ``max_shift`` pixels both ways.

    Parameters
    ----------
    pictures : array of shape (n, S, S)
    stimuli : array of shape (m, S, S)

    Returns
    -------
    keep : bool array of shape (n,)
    highest : float
        Highest correlation among the pictures kept.
    """

    def unit(a: np.ndarray) -> np.ndarray:
        a = a.reshape(len(a), -1).astype(np.float32)
        a = a - a.mean(1, keepdims=True)
        return a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-9)

    p = unit(pictures)
    highest = np.full(len(p), -1.0)
    for dy in range(-max_shift, max_shift + 1):
        for dx in range(-max_shift, max_shift + 1):
            moved = unit(np.roll(stimuli, (dy, dx), axis=(1, 2)))
            highest = np.maximum(highest, (p @ moved.T).max(1))
    keep = highest < threshold
    return keep, float(highest[keep].max()) if keep.any() else float("nan")
