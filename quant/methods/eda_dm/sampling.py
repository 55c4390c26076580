"""TDAC: how many calibration samples each timestep gets, by density and diversity of mid-block features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant.methods.eda_dm.config import EdaDmConfig
from quant.recordings.rows import calibration_keys, null_of
from quant.recordings.sampling import predict
from quant.recordings.trajectories import Batch, Trajectories


def distances(features: Tensor) -> Tensor:
    """Mean squared distance of each pair of timesteps, (T, T), from features (T, ...)."""
    flat = features.double().flatten(1)
    square = flat.square().sum(1)
    gram = flat @ flat.T
    return ((square[:, None] + square[None] - 2 * gram) / flat.shape[1]).clamp(min=0)


def density(features: Tensor, radius: float) -> Tensor:
    """Count the other timesteps within `radius`, (T,): ``#{s != t : mean((F_t - F_s)^2) <= r}``."""
    near = distances(features) <= radius
    near.fill_diagonal_(False)
    return near.sum(1).double()


def diversity(features: Tensor) -> Tensor:
    """Sum of ``1 - cos`` over other timesteps, samples and positions, (T,); features (T, n, positions, C)."""
    unit = torch.nn.functional.normalize(features.double(), dim=-1)
    cosine = torch.einsum("tnpc,snpc->ts", unit, unit)
    each = features.shape[1] * features.shape[2]
    apart = (each - cosine).clamp(min=0)
    apart.fill_diagonal_(0.0)
    return apart.sum(1)


def scores(features: Tensor, radius: float, weight: float) -> Tensor:
    """``S_t = D_t + lambda V_t``, both scaled to [0, 1]; a constant one says nothing and counts 0, (T,).

    Where both are constant every timestep gets the same score.
    """
    total = _unit(density(features, radius))
    if weight:
        total = total + weight * _unit(diversity(features))
    return total if bool(total.sum() > 0) else torch.ones_like(total)


def _unit(x: Tensor) -> Tensor:
    """Min-max normalisation; zeros for constants (rounding noise included), where it would divide 0 by 0."""
    spread = x.max() - x.min()
    return (x - x.min()) / spread if spread > 1e-9 * x.abs().max() else torch.zeros_like(x)


def counts(score: Tensor, points: int) -> list[int]:
    """``N_t = round(N S_t / sum S)``, remainder to the largest, surplus from the end; sums to `points`."""
    share = (points * score / score.sum()).round().long()
    rest = points - int(share.sum())
    if rest > 0:
        for index in torch.argsort(share, descending=True, stable=True).repeat(rest)[:rest].tolist():
            share[index] += 1
    index = len(share) - 1
    while rest < 0:  # never below zero: empty timesteps are passed over
        if share[index] > 0:
            share[index] -= 1
            rest += 1
        index = index - 1 if index else len(share) - 1
    return [int(n) for n in share]


def draw(keys: list[int], steps: list[int], seed: int) -> list[tuple[int, int]]:
    """Give each label a trajectory of its own; with more labels than trajectories they are reused in rounds.

    `steps` has each step index as often as it was counted; labels are permuted, so a trajectory's place in
    the recording says nothing about its timestep.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = [steps[i] for i in torch.randperm(len(steps), generator=generator).tolist()]
    rows: list[int] = []
    while len(rows) < len(labels):
        rows += [keys[i] for i in torch.randperm(len(keys), generator=generator).tolist()]
    return list(zip(rows, labels, strict=False))


def middle(model: nn.Module) -> nn.Module:
    """Block whose input features are compared: the mid-block's attention, or the middle transformer block."""
    block: Any = getattr(model, "mid_block", None)
    attentions = getattr(block, "attentions", None)
    if attentions is not None and len(attentions) and attentions[0] is not None:
        return attentions[0]
    if block is not None:
        return block
    for name in ("transformer_blocks", "blocks", "single_transformer_blocks"):
        blocks: Any = getattr(model, name, None)
        if blocks is not None and len(blocks):
            return blocks[len(blocks) // 2]
    return model


@torch.no_grad()
def features(model: nn.Module, trajectories: Trajectories, samples: int) -> Tensor:
    """Mid-block inputs of a first batch at every timestep, (T, n, positions, C)."""
    kept: list[Tensor] = []

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["hidden_states"]
        kept.append((x.flatten(2).transpose(1, 2) if x.ndim == 4 else x).float().cpu())

    keys = trajectories.keys("calibrate")[:samples]
    rows = [trajectories.sample(key) for key in keys]
    condition = torch.stack([r["condition"] for r in rows]) if "condition" in rows[0] else None
    handle = middle(model).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        for step, time in enumerate(trajectories.timesteps):
            predict(model, torch.stack([r["x"][step] for r in rows]), torch.tensor([time]).float(), condition)
    finally:
        handle.remove()
    return torch.stack(kept)


def calibration(
    model: nn.Module, trajectories: Trajectories, config: EdaDmConfig, seed: int
) -> tuple[Batch, dict[str, Any]]:
    """Calibration points, and what the ledger should say about them.

    Raises
    ------
    MissingDataError
        The recording has no samples for calibration.
    """
    keys = calibration_keys(trajectories)
    total = len(trajectories.timesteps)
    if config.calibration == "random":
        generator = torch.Generator().manual_seed(seed)
        steps = torch.randint(total, (config.points,), generator=generator).tolist()
        share = [steps.count(step) for step in range(total)]
    else:
        found = features(model, trajectories, config.feature_samples)
        radius = config.radius
        if radius is None:
            pairs = distances(found)[~torch.eye(total, dtype=torch.bool)]
            radius = float(pairs.quantile(config.radius_quantile)) if len(pairs) else 1.0
        share = counts(scores(found, radius, config.diversity), config.points)
        steps = [step for step, count in enumerate(share) for _ in range(count)]
    pairs_drawn = draw(keys, steps, seed)
    rows = [(trajectories.sample(key), step, key) for key, step in pairs_drawn]
    condition = [row["condition"] for row, _, _ in rows] if "condition" in rows[0][0] else None
    null = null_of(trajectories)
    if (
        condition is not None and null is not None
    ):  # sampling runs both, so every second point has no condition
        condition[1::2] = [null.to(condition[0])] * len(condition[1::2])
    batch = Batch(
        torch.stack([row["x"][step] for row, step, _ in rows]),
        torch.tensor([trajectories.timesteps[step] for _, step, _ in rows], dtype=torch.float32),
        None if condition is None else torch.stack(condition),
        torch.tensor([key for _, _, key in rows]),
    )
    return batch, {"calibration": config.calibration, "points_by_step": share}
