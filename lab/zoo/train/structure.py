"""Training the structural feature net together with its inverse, on features that noise has been added to."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from lab.metrics.efficientnet import load_efficientnet
from lab.progress import Progress
from lab.zoo.data import Pictures
from lab.zoo.models.structure import StructureNet
from lab.zoo.train.augment import flip
from lab.zoo.train.loop import Outcome, Recipe, fit

RECIPE = Recipe(steps=10_000, batch=256, lr=1e-3, ema=0.999)
FEATURE_TAPS = ("16", "24", "40")
FEATURE_WEIGHT = 0.02


def train(
    pictures: Pictures,
    state_file: Path,
    recipe: Recipe,
    seed: int,
    minutes: float | None,
    progress: Progress,
    start: StructureNet | None = None,
) -> tuple[StructureNet, Outcome]:
    """Minimise the picture's error, in pixels and early ImageNet features, from noisy structural maps."""
    device = pictures.images.device
    teacher = load_efficientnet(device)
    torch.manual_seed(seed)
    model = (start or StructureNet()).to(device, memory_format=torch.channels_last)

    def step_loss(model: StructureNet, index: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        x = flip(pictures.batch(index)).contiguous(memory_format=torch.channels_last)
        level = torch.rand(
            3, len(index), 1, 1, 1, device=x.device
        ).square()  # noise of up to one feature's spread
        maps = [m + s * torch.randn_like(m) for m, s in zip(model.features(x), level, strict=True)]
        y = model.reconstruct(maps)
        pixels = (y.float() - x).abs().mean() + 4 * (y.float() - x).square().mean()
        with torch.no_grad():
            goal = teacher.features(x, size=64, taps=FEATURE_TAPS)
        seen = teacher.features(y, size=64, taps=FEATURE_TAPS)
        return pixels + FEATURE_WEIGHT * sum(
            F.l1_loss(seen[t].float(), goal[t].float()) for t in FEATURE_TAPS
        )

    outcome = fit(
        model, step_loss, len(pictures), recipe, state_file, seed=seed, minutes=minutes, progress=progress
    )
    return model, outcome
