"""The encoder's epochs: steps on batches of one subject, validation, checkpoints that go on after a stop.

Voxels are drawn once for each step and its trials (published: for each trial): one product serves all.

Everything random in an epoch comes from generators seeded by (seed, epoch), so a run that was stopped ends
with the same numbers as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from brainit.errors import InputError
from brainit.io import optimizer_tensors, read_state, restore_optimizer, write_state
from brainit.processes import Processes
from brainit.progress import Progress
from brainit.voxels.trials import VoxelTrials
from brainit.voxels.universal.config import EncoderConfig
from brainit.voxels.universal.data import batches
from brainit.voxels.universal.fitted import History, named
from brainit.voxels.universal.model import UniversalEncoder
from brainit.voxels.universal.score import correlations
from brainit.voxels.universal.taps import Taps

QUANTILE = 0.75
"""The validation score is this quantile of the voxels' correlations."""


def train(
    encoder: UniversalEncoder,
    taps: Taps,
    trials: Mapping[str, VoxelTrials],
    held: np.ndarray,
    config: EncoderConfig,
    together: Processes,
    folder: Path | None,
    key: str,
    progress: Progress,
) -> History:
    """Train ``encoder`` in place and leave it at its best epoch.

    Parameters
    ----------
    encoder, taps : UniversalEncoder, Taps
    trials : mapping of VoxelTrials
    held : int64 array of shape (n_held,)
        Picture rows for validation.
    config : EncoderConfig
    together : Processes
    folder, key : path, str
        Where checkpoints go; a checkpoint of another key is refused.
    progress : callable
        In steps.
    """
    optimizer = torch.optim.Adam(
        [p for p in encoder.parameters() if p.requires_grad], lr=config.lr, amsgrad=True
    )
    history, best = History(), _copy(encoder)
    last = None if folder is None else folder / "last.safetensors"
    if last is not None and last.is_file():
        history, best = _resume(last, encoder, optimizer, key)
    together.wait()  # nobody writes before everybody has read
    learned = {name: np.flatnonzero(~np.isin(own.rows, held)) for name, own in trials.items()}
    n_steps = sum(-(-len(rows) // config.batch) for rows in learned.values())
    while len(history.loss) < config.epochs:
        began, epoch = time.monotonic(), len(history.loss)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, history.score)
        rng = np.random.default_rng([config.seed, epoch])
        encoder.train()
        losses = []
        so_far = f", validation r {history.score[-1]:.3f}" if history.score else ""
        for step, (name, numbers) in enumerate(batches(learned, config.batch, rng)):
            progress(epoch * n_steps + step, config.epochs * n_steps, f"voxel encoder{so_far}")
            losses.append(_step(encoder, taps, name, trials[name], numbers, config, optimizer, together, rng))
        history.loss.append(float(np.mean(losses)))
        if not np.isfinite(history.loss[-1]):
            raise InputError(f"the voxel encoder diverged in epoch {epoch + 1}; lower lr (now {config.lr:g})")
        encoder.eval()
        if len(held):
            history.score.append(_validate(taps, trials, held))
        if not len(held) or history.score[-1] >= max(history.score):
            history.best_epoch, best = epoch, _copy(encoder)
        history.seconds += time.monotonic() - began
        if last is not None and together.first:
            tensors = {f"model/{k}": v for k, v in encoder.state_dict().items()}
            tensors |= {f"best/{k}": v for k, v in best.items()} | optimizer_tensors(optimizer)
            write_state(last, tensors, {"key": key, "history": vars(history)})
    progress(config.epochs * n_steps, config.epochs * n_steps, "voxel encoder fitted")
    encoder.load_state_dict(best)
    return history


def _step(
    encoder: UniversalEncoder,
    taps: Taps,
    name: str,
    own: VoxelTrials,
    numbers: np.ndarray,
    config: EncoderConfig,
    optimizer: torch.optim.Optimizer,
    together: Processes,
    rng: np.random.Generator,
) -> float:
    """Take one optimizer step on a batch of one subject and return its loss."""
    count = own.betas.shape[1]
    voxels = rng.integers(count, size=config.voxel_draws) if config.voxel_draws else np.arange(count)
    seed = int(rng.integers(2**62))
    moves = rng.uniform(-1, 1, (len(numbers), 2))
    rows = together.rows(len(numbers))
    mine = numbers[rows]
    optimizer.zero_grad(set_to_none=True)
    share, value = len(mine) / len(numbers), 0.0
    if len(mine):
        drawn = torch.from_numpy(voxels).to(encoder.readout.device)
        target = torch.from_numpy(own.betas[mine][:, voxels]).to(encoder.readout)
        with torch.random.fork_rng():
            torch.manual_seed(seed + together.rank)  # dropout
            tokens = taps.take(own.rows[mine], moves[rows])
            loss = encoder_loss(encoder(tokens, name, drawn), target, config.cosine)
            loss.backward()
        value = loss.item()
    others = {encoder.names[n] for n in encoder.names if n != name}
    trained = [
        p
        for k, p in encoder.named_parameters()
        if p.requires_grad and k.removeprefix("voxels.") not in others
    ]
    together.mean_gradients(trained, share)
    optimizer.step()
    return together.sum(value * share)


def encoder_loss(predicted: torch.Tensor, target: torch.Tensor, cosine: float) -> torch.Tensor:
    """Mean squared error less ``cosine`` times the mean over trials of the cosine over voxels."""
    return F.mse_loss(predicted, target) - cosine * F.cosine_similarity(predicted, target, dim=1).mean()


def learning_rate(config: EncoderConfig, scores: list[float]) -> float:
    """Rate of the next epoch: a tenth after each plateau of the validation score."""
    rate, best, bad = config.lr, -np.inf, 0
    for score in scores:
        best, bad = (score, 0) if score > best else (best, bad + 1)
        if bad > config.plateau:
            rate, bad = rate / 10, 0
    return rate


def _validate(taps: Taps, trials: Mapping[str, VoxelTrials], held: np.ndarray) -> float:
    found = []
    for name, own in trials.items():
        out = np.isin(own.rows, held)
        if out.sum() > 1:
            found.append(correlations(taps.predict(own.rows[out], name).numpy(), own.betas[out]))
    return float(np.quantile(np.concatenate(found), QUANTILE))


def _copy(encoder: UniversalEncoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in encoder.state_dict().items()}


def _resume(
    last: Path, encoder: UniversalEncoder, optimizer: torch.optim.Optimizer, key: str
) -> tuple[History, dict[str, torch.Tensor]]:
    tensors, header = read_state(last)
    if header["key"] != key:
        raise InputError(
            f"{last.parent} holds a voxel encoder of other data or settings; choose another folder or "
            "delete it"
        )
    encoder.load_state_dict(named(tensors, "model/"))
    restore_optimizer(optimizer, tensors)
    best = {name: value.to(encoder.readout.device) for name, value in named(tensors, "best/").items()}
    return History(**header["history"]), best
