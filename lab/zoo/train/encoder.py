"""Training the patch encoder: what an ImageNet network sees, class labels, and where the colours are."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F

from lab.metrics.efficientnet import EfficientNetLite0, load_efficientnet
from lab.progress import Progress
from lab.zoo.data import Pictures
from lab.zoo.models.encoder import PatchEncoder
from lab.zoo.train.augment import flip, shift
from lab.zoo.train.loop import Outcome, Recipe, fit

RECIPE = Recipe(steps=16_000, batch=512, lr=1e-3, weight_decay=0.05, ema=0.999)
CLASS_WEIGHT, COLOUR_WEIGHT = 0.3, 1.0


def teacher_targets(teacher: EfficientNetLite0, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the teacher's view of (n, 3, 64, 64): head (n, 1280), stage 112 pooled to 4x4 (n, 16, 112)."""
    taps = teacher.features(images, size=128, taps=("112", "head"))
    return taps["head"], F.adaptive_avg_pool2d(taps["112"], 4).flatten(2).transpose(1, 2)


def colour_targets(images: torch.Tensor) -> torch.Tensor:
    """Return the 16x16 mean colours of pictures (n, 3, 64, 64) by patch: (n, 16, 48)."""
    x = F.avg_pool2d(images, 4) * 4 - 2
    return F.unfold(x, 4, stride=4).transpose(1, 2)


def train(
    pictures: Pictures,
    state_file: Path,
    recipe: Recipe,
    seed: int,
    minutes: float | None,
    progress: Progress,
    start: PatchEncoder | None = None,
) -> tuple[PatchEncoder, Outcome]:
    """Distil the teacher's standardised features, labels (cross-entropy) and colours (squared error)."""
    device = pictures.images.device
    teacher = load_efficientnet(device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        sample = torch.linspace(0, len(pictures) - 1, min(8192, len(pictures)), device=device).long()
        seen = [teacher_targets(teacher, pictures.batch(i)) for i in sample.split(256)]
    whole, patch = (torch.cat(part).float() for part in zip(*seen, strict=True))
    stats = [
        (t.mean(dim=(0, 1)[: t.ndim - 1]), t.std(dim=(0, 1)[: t.ndim - 1]) + 1e-3) for t in (whole, patch)
    ]
    torch.manual_seed(seed)
    model = (start or PatchEncoder()).to(device)

    def step_loss(model: PatchEncoder, index: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        x, labels = pictures.batch(index), pictures.labels[index]
        scenes = (labels < 200).view(
            -1, 1, 1, 1
        )  # digits and patterns do not keep their meaning when mirrored
        x = shift(torch.where(scenes, flip(x), x), 4)
        with torch.no_grad():
            whole, patch = teacher_targets(teacher, x)
        tokens = model(x)
        goals = (
            (model.to_teacher_global(tokens[:, 0]), whole, 0),
            (model.to_teacher_patch(tokens[:, 1:]), patch, 1),
        )
        seen = sum(
            F.mse_loss(guess.float(), (goal.float() - stats[i][0]) / stats[i][1]) for guess, goal, i in goals
        )
        named = F.cross_entropy(model.classify(tokens).float(), labels, label_smoothing=0.1)
        placed = F.mse_loss(model.to_colour(tokens[:, 1:]).float(), colour_targets(x))
        return seen + CLASS_WEIGHT * named + COLOUR_WEIGHT * placed

    outcome = fit(
        model, step_loss, len(pictures), recipe, state_file, seed=seed, minutes=minutes, progress=progress
    )
    return model, outcome
