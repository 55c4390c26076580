"""Batches for training: real and synthetic trials, augmentation, and which voxels and positions take part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from brainit.config import CareConfig, TrainConfig
from brainit.network.tokenizer import draw_voxels
from brainit.training.trials import SyntheticTrials
from brainit.voxels.ridge import Ridge


@dataclass(frozen=True)
class Batch:
    """Trials of one subject: z-scored betas, standardised flat targets, and what ridge already predicts."""

    subject: str
    betas: torch.Tensor
    target: torch.Tensor
    base: torch.Tensor | None = None

    def to(self, device: str | torch.device) -> Batch:
        """Return the same batch on a device."""
        base = None if self.base is None else self.base.to(device)
        return Batch(self.subject, self.betas.to(device), self.target.to(device), base)

    def cut(self, rows: slice) -> Batch:
        """Return some of its trials."""
        base = None if self.base is None else self.base[rows]
        return Batch(self.subject, self.betas[rows], self.target[rows], base)


@dataclass(frozen=True)
class LearningData:
    """What one network learns from.

    Parameters
    ----------
    train, valid : mapping of str to Batch
        All trials of each subject.
    ridges : mapping of str to Ridge
        Fitted on ``train``; used for synthetic trials. Empty without ``residual_on_ridge``.
    synthetic : SyntheticTrials, optional
    """

    train: Mapping[str, Batch]
    valid: Mapping[str, Batch]
    ridges: Mapping[str, Ridge] = field(default_factory=dict)
    synthetic: SyntheticTrials | None = None


def batches(
    data: LearningData, config: TrainConfig, care: CareConfig, rng: np.random.Generator
) -> Iterator[Batch]:
    """Yield batches of one subject each, subjects interleaved at random."""
    share, n_real = _division(data, config, care)
    queue = []
    for name, own in data.train.items():
        order = rng.permutation(len(own.betas))
        step = n_real or config.batch
        queue += [(name, order[i : i + step]) for i in range(0, len(order), step)]
    rounds = [queue[i] for i in rng.permutation(len(queue))]
    wanted = config.steps_per_epoch or len(rounds)
    while len(rounds) < wanted:
        rounds += [queue[i] for i in rng.permutation(len(queue))]
    for name, rows in rounds[:wanted]:
        own, rows = data.train[name], torch.from_numpy(rows)
        real = Batch(name, own.betas[rows], own.target[rows], None if own.base is None else own.base[rows])
        if share == 0:
            yield real
            continue
        betas, target = data.synthetic.draw(config.batch - n_real, name, rng)
        ridge = data.ridges.get(name)
        base = None if ridge is None else torch.from_numpy(ridge.predict(betas.cpu().numpy()))
        made = Batch(name, betas.cpu(), target, base)
        yield made if n_real == 0 else _join(real, made)


def batch_count(data: LearningData, config: TrainConfig, care: CareConfig) -> int:
    """How many batches `batches` yields."""
    step = _division(data, config, care)[1] or config.batch
    return config.steps_per_epoch or sum(-(-len(own.betas) // step) for own in data.train.values())


def _division(data: LearningData, config: TrainConfig, care: CareConfig) -> tuple[float, int]:
    """Share of synthetic trials in a batch, and the number of real ones."""
    share = care.synthetic_share if data.synthetic is not None else 0.0
    return share, max(1, round(config.batch * (1 - share))) if share < 1 else 0


def _join(a: Batch, b: Batch) -> Batch:
    base = None if a.base is None else torch.cat([a.base, b.base])
    return Batch(a.subject, torch.cat([a.betas, b.betas]), torch.cat([a.target, b.target]), base)


def augment(batch: Batch, care: CareConfig, generator: torch.Generator) -> Batch:
    """Blend trials (mixup) and add noise to betas, as configured."""
    betas, target, base = batch.betas, batch.target, batch.base
    n = len(betas)
    if care.mixup:
        other = torch.randperm(n, generator=generator)
        share = 0.5 * torch.rand(n, 1, generator=generator)
        share = share * (torch.rand(n, 1, generator=generator) < care.mixup)
        betas, target = betas.lerp(betas[other], share), target.lerp(target[other], share)
        base = None if base is None else base.lerp(base[other], share)
    if care.beta_noise:
        betas = betas + care.beta_noise * torch.randn(betas.shape, generator=generator)
    return Batch(batch.subject, betas, target, base)


def draw_keep(
    batch: Batch, config: TrainConfig, care: CareConfig, generator: torch.Generator
) -> torch.Tensor | None:
    """Draw the voxels each trial keeps, bool (B, n_voxels); None for all."""
    keep = draw_voxels(*batch.betas.shape, config.voxel_draws, generator)
    if care.voxel_dropout:
        seen = torch.rand(batch.betas.shape, generator=generator) >= care.voxel_dropout
        keep = seen if keep is None else keep & seen
    return keep


def draw_places(
    shapes: list[tuple[int, ...]], wanted: list[int], generator: torch.Generator
) -> list[torch.Tensor | None]:
    """Draw the positions of each structural scale that a step runs; None for all."""
    out: list[torch.Tensor | None] = []
    for index, (_, h, w) in enumerate(shapes[1:]):
        few = index < len(wanted) and wanted[index] < h * w
        out.append(torch.randperm(h * w, generator=generator)[: wanted[index]] if few else None)
    return out


def cut_flat(
    flat: torch.Tensor, shapes: list[tuple[int, ...]], places: list[torch.Tensor | None]
) -> list[torch.Tensor]:
    """Cut flat values (B, n_values) into tokens (B, T, D) and each scale (B, P, C) at the places."""
    parts = flat.split([int(np.prod(shape)) for shape in shapes], 1)
    out = [parts[0].unflatten(1, shapes[0])]
    for part, (channels, h, w), place in zip(parts[1:], shapes[1:], places, strict=True):
        maps = part.unflatten(1, (channels, h * w))
        out.append((maps if place is None else maps[:, :, place]).transpose(1, 2))
    return out
