"""What a decoder predicts of a picture: semantic tokens and structural maps.

The model knows nothing of the networks that made them; it sees arrays. Everything is standardised with
statistics of the *training* targets only, so that a prediction of zero means "the average training picture".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from brainit.errors import InputError

_T = TypeVar("_T", bound="Targets")


@dataclass(frozen=True)
class Targets:
    """Semantic tokens and structural maps of n pictures.

    Parameters
    ----------
    tokens : float32 tensor of shape (n, T, D)
    structure : list of float32 tensors of shape (n, C, h, w)
        One a scale, finest first; may be empty.
    """

    tokens: torch.Tensor
    structure: list[torch.Tensor]

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3:
            raise InputError(f"tokens must have shape (n, tokens, width), got {tuple(self.tokens.shape)}")
        for maps in self.structure:
            if maps.ndim != 4 or len(maps) != len(self.tokens):
                raise InputError(
                    f"structural maps must have shape ({len(self.tokens)}, channels, height, width), "
                    f"got {tuple(maps.shape)}"
                )

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of each part without the leading n: tokens first, then every scale."""
        return [tuple(part.shape[1:]) for part in self.parts]

    @property
    def parts(self) -> list[torch.Tensor]:
        """Tokens, then every scale."""
        return [self.tokens, *self.structure]

    def select(self: _T, rows: torch.Tensor | np.ndarray | Sequence[int]) -> _T:
        """Return the pictures at these rows."""
        rows = torch.as_tensor(np.asarray(rows))
        return type(self)(self.tokens[rows], [maps[rows] for maps in self.structure])

    def flat(self) -> torch.Tensor:
        """Concatenate all parts to shape (n, n_values)."""
        return torch.cat([part.flatten(1) for part in self.parts], 1)

    def like(self: _T, flat: torch.Tensor | np.ndarray) -> _T:
        """Cut ``flat`` of shape (m, n_values) into parts of this object's shapes."""
        return type(self).from_flat(flat, self.shapes)

    @classmethod
    def from_flat(cls: type[_T], flat: torch.Tensor | np.ndarray, shapes: Sequence[Sequence[int]]) -> _T:
        """Undo :meth:`flat` for parts of the given shapes (tokens first)."""
        flat = torch.as_tensor(flat)
        sizes = [int(np.prod(shape)) for shape in shapes]
        parts = [
            part.reshape(len(flat), *shape) for part, shape in zip(flat.split(sizes, 1), shapes, strict=True)
        ]
        return cls(parts[0], parts[1:])


class Prediction(Targets):
    """Tokens and structural maps a decoder says were seen; same fields as :class:`Targets`."""


@dataclass(frozen=True)
class TargetTable:
    """Targets of named stimuli.

    Parameters
    ----------
    ids : sequence of str
        Stimulus identifiers, one a row of ``targets``.
    targets : Targets
    """

    ids: Sequence[str]
    targets: Targets

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.targets):
            raise InputError(
                f"{len(self.ids)} stimulus ids for {len(self.targets)} targets; give one id a row"
            )

    def rows(self, stimulus_id: Sequence[str] | np.ndarray) -> np.ndarray:
        """Rows of the given stimuli, int64 (n,); raises ``InputError`` where one has no target."""
        where = {str(key): row for row, key in enumerate(self.ids)}
        missing = [str(s) for s in stimulus_id if str(s) not in where]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(stimulus_id)} trials show a stimulus without a target "
                f"(first: {missing[0]!r}); compute targets for every training stimulus"
            )
        return np.array([where[str(s)] for s in stimulus_id], np.int64)

    def take(self, stimulus_id: Sequence[str] | np.ndarray) -> Targets:
        """Targets of the given stimuli, one a trial."""
        return self.targets.select(self.rows(stimulus_id))


def as_table(targets: TargetTable | Mapping[str, tuple[torch.Tensor, Sequence[torch.Tensor]]]) -> TargetTable:
    """Accept a table, or a mapping of stimulus id to ``(tokens (T, D), [maps (C, h, w), ...])``."""
    if isinstance(targets, TargetTable):
        return targets
    if not targets:
        raise InputError("no targets were given; compute them for every training stimulus")
    ids = list(targets)
    tokens = torch.stack([torch.as_tensor(targets[key][0]) for key in ids])
    scales = zip(*(targets[key][1] for key in ids), strict=True)
    return TargetTable(
        ids, Targets(tokens, [torch.stack([torch.as_tensor(m) for m in maps]) for maps in scales])
    )


@dataclass(frozen=True)
class TargetScaler:
    """Standardisation fitted on training targets.

    The mean is kept for every position and channel (a prediction of zero is then the mean picture); the scale
    is one number a channel, shared by all tokens or positions, so that positions keep their relative spread.

    Parameters
    ----------
    mean, scale : float32 tensor of shape (n_values,)
    shapes : list of tuple of int
        Shapes of the parts, tokens first.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    shapes: list[tuple[int, ...]]

    @classmethod
    def fit(cls, targets: Targets) -> TargetScaler:
        """Fit on training targets (n >= 2)."""
        mean, scale = [], []
        for index, part in enumerate(targets.parts):
            centre = part.double().mean(0)
            over = (0, 1) if index == 0 else (0, 2, 3)
            spread = ((part.double() - centre) ** 2).mean(over).sqrt()
            spread = torch.where(spread > 1e-6, spread, torch.ones_like(spread))
            mean.append(centre.flatten())
            scale.append((spread if index == 0 else spread[:, None, None]).expand(centre.shape).flatten())
        return cls(torch.cat(mean).float(), torch.cat(scale).float(), targets.shapes)

    def apply(self, targets: Targets) -> torch.Tensor:
        """Standardise to a flat tensor of shape (n, n_values)."""
        return (targets.flat().float() - self.mean) / self.scale

    def invert(self, flat: torch.Tensor | np.ndarray) -> Prediction:
        """Bring standardised values of shape (n, n_values) back to the targets' units."""
        flat = torch.as_tensor(flat, dtype=torch.float32)
        return Prediction.from_flat(flat * self.scale + self.mean, self.shapes)

    @property
    def groups(self) -> dict[str, torch.Tensor]:
        """Flat indices of the parts that are calibrated and reported separately.

        ``token_global`` (token 0), ``tokens`` (the others), ``structure_0`` ...
        """
        n_tokens, width = self.shapes[0]
        groups = {"token_global": torch.arange(width)}
        if n_tokens > 1:
            groups["tokens"] = torch.arange(width, n_tokens * width)
        start = n_tokens * width
        for scale, shape in enumerate(self.shapes[1:]):
            size = int(np.prod(shape))
            groups[f"structure_{scale}"] = torch.arange(start, start + size)
            start += size
        return groups


def category_targets(labels: Sequence[str] | np.ndarray, *, width: int = 64, seed: int = 0) -> TargetTable:
    """Return one fixed random orthogonal token a category, for data without pictures.

    Parameters
    ----------
    labels : sequence of str
        Category names, repeats allowed.
    width : int
        Length of the token; raised to the number of categories where that is larger.

    Returns
    -------
    TargetTable
        Keyed by category: set a subject's ``stimulus_id`` to its ``labels`` to train on it. ``tokens`` is
        (n_categories, 1, width), rows orthogonal with norm sqrt(width); ``structure`` is empty.
    """
    names = sorted({str(label) for label in labels})
    if len(names) < 2:
        raise InputError(f"category decoding needs at least 2 categories, got {names}")
    width = max(width, len(names))
    noise = torch.randn(width, len(names), generator=torch.Generator().manual_seed(seed))
    basis = torch.linalg.qr(noise.double())[0].T * width**0.5
    return TargetTable(names, Targets(basis.float()[:, None], []))


def nearest_category(prediction: Targets, table: TargetTable) -> tuple[np.ndarray, np.ndarray]:
    """Say which category's tokens a prediction resembles most.

    Returns
    -------
    names : str array of shape (n,)
    scores : float64 array of shape (n, n_categories)
        Correlation of the predicted tokens with each category's tokens, both relative to the categories'
        mean.
    """
    reference = table.targets.tokens.flatten(1).double()
    centre = reference.mean(0)
    a = torch.nn.functional.normalize(prediction.tokens.flatten(1).double() - centre, dim=1)
    b = torch.nn.functional.normalize(reference - centre, dim=1)
    scores = (a @ b.T).numpy()
    return np.asarray(table.ids)[scores.argmax(1)], scores
