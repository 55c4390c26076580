"""How strongly the decoder is guided by a method's tokens: chosen on pictures that the method has not seen.

Two-way identification alone rewards too much of it and pixels alone reward blur, so both count alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from lab.decoding.cohort.subjects import Known
from lab.metrics.distances import pooled_features
from lab.zoo.people import Seen
from lab.zoo.shared.painting import Painter

GUIDANCES = (2.0, 3.0, 4.0, 6.0)
USUAL, CLEAR = 3.0, 2.0
"""Few pictures choose badly, and a rival that is guided badly is none: another one must be clearly better."""
STEPS = 10
MOST = 200
"""Pictures that are drawn to choose by."""


@dataclass(frozen=True)
class LeftOut:
    """Tokens said of training pictures without having learned from them.

    Parameters
    ----------
    tokens : float tensor of shape (n, n_values)
    shown : int64 tensor of shape (n,)
        The pictures, among all.
    """

    tokens: torch.Tensor
    shown: torch.Tensor

    @classmethod
    def join(cls, some: Sequence[LeftOut], most: int = MOST) -> LeftOut:
        """Put several subjects' together, as many of each, ``most`` in all."""
        each = max(1, most // len(some))
        tokens = torch.cat([one.tokens[k : k + each] for one, k in _starts(some, each)])
        return cls(tokens, torch.cat([one.shown[k : k + each] for one, k in _starts(some, each)]))


def _starts(some: Sequence[LeftOut], each: int) -> list[tuple[LeftOut, int]]:
    """Return where each begins, so that subjects who saw the same pictures show different ones."""
    return [(one, min(k * each, max(0, len(one.shown) - each))) for k, one in enumerate(some)]


def kept_out(one: Known, held: int) -> torch.Tensor:
    """Return the trials of pictures that no network learns from, in the order of the pictures.

    ``held`` 0 is for a newcomer, of whom the network knows none: its first trials.
    """
    shown = one.member.index
    if not held:
        return torch.arange(min(MOST, len(shown)), device=shown.device)
    rows = torch.nonzero(shown < held)[:, 0]
    return rows[shown[rows].argsort()]


def choose(
    left: LeftOut, seen: Seen, painter: Painter, denoiser: Any, null: torch.Tensor, steps: int
) -> float:
    """Return the guidance of best two-way and PixCorr together, drawn in ``steps``, at most `STEPS`."""
    shown = left.shown.cpu()
    floats = seen.images[shown].float() / 255
    heads = pooled_features(painter.network, floats.to(painter.device), "head")
    mine = replace(painter, truth=floats.permute(0, 2, 3, 1).numpy(), heads=heads)
    tokens = left.tokens.reshape(len(shown), 17, -1).float()
    found = {}
    for guidance in GUIDANCES:
        _, scores = mine.paint(denoiser, null.cpu(), tokens, guidance, steps=min(STEPS, steps))
        found[guidance] = scores["two_way"] + scores["pixcorr"]
    return clearly_best(found)


def clearly_best(found: Mapping[float, np.ndarray]) -> float:
    """Return the guidance of the best mean, or `USUAL` where none gains more than `CLEAR` standard errors.

    Parameters
    ----------
    found : mapping of float to array of shape (n,)
        Score of each picture, paired.
    """
    best, most = USUAL, 0.0
    for guidance, scores in found.items():
        gain = scores - found[USUAL]
        error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else np.inf
        if gain.mean() > max(most, CLEAR * error):
            best, most = guidance, float(gain.mean())
    return best
