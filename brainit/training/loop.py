"""Train one network: validation split, early stopping, best checkpoint, resumable to the same numbers.

Everything random in an epoch comes from generators seeded by (seed, member, epoch), and checkpoints are
written between epochs with the optimizer's state; so a run that was killed goes on and ends with the same
bits as one that was not.

Several processes (``accelerate launch``) draw the same batches and take their rows of them; contrastive
losses then compare the trials of one process, and dropout differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from brainit.config import CareConfig, TrainConfig
from brainit.errors import InputError
from brainit.io import optimizer_tensors, read_state, restore_optimizer, write_state
from brainit.network.losses import total_loss
from brainit.network.model import BrainIT
from brainit.network.tokenizer import parameter_key
from brainit.processes import Processes
from brainit.progress import Progress, silent
from brainit.training.batches import (
    Batch,
    LearningData,
    augment,
    batch_count,
    batches,
    cut_flat,
    draw_keep,
    draw_places,
)

FINE = 100
"""Progress counts hundredths of an epoch."""
_VALIDATION_CHUNK = 64


@dataclass
class History:
    """Losses by epoch and where the best one was."""

    train: list[float] = field(default_factory=list)
    valid: list[float] = field(default_factory=list)
    best_epoch: int = -1
    seconds: float = 0.0
    stopped: str = ""

    @property
    def best(self) -> float:
        """Least validation loss, infinite before the first epoch."""
        return self.valid[self.best_epoch] if self.best_epoch >= 0 else float("inf")


def learning_rate(config: TrainConfig, valid: list[float]) -> float:
    """Rate of the next epoch: cubic warm-up, then a tenth after every plateau of the validation loss.

    Brain-IT's code has torch's ReduceLROnPlateau, patience 5 and absolute threshold .001: it falls at the
    sixth epoch without a gain of so much. Here it waits for ``plateau`` epochs, and any gain counts: losses
    of standardised targets have another scale.
    """
    epoch = len(valid)
    if epoch < config.warmup_epochs:
        return config.lr * (1e-3 + (1 - 1e-3) * ((epoch + 1) / config.warmup_epochs) ** 3)
    best, bad, rate = float("inf"), 0, config.lr
    for loss in valid[config.warmup_epochs :]:
        best, bad = (loss, 0) if loss < best else (best, bad + 1)
        if bad >= config.plateau:
            rate, bad = rate / 10, 0
    return rate


def train_network(
    net: BrainIT,
    data: LearningData,
    config: TrainConfig,
    care: CareConfig,
    *,
    member: int = 0,
    folder: Path | None = None,
    key: str = "",
    progress: Progress = silent,
    device: str = "cpu",
) -> History:
    """Train ``net`` in place and leave it at its best validation loss.

    Parameters
    ----------
    net : BrainIT
    data : LearningData
    config, care : TrainConfig, CareConfig
    member : int
        Number of the network within an ensemble; part of every seed.
    folder : path, optional
        Where ``last`` and ``best`` checkpoints go; training continues from there.
    key : str
        Fingerprint of settings and data; a checkpoint with another is refused.
    progress : callable
        In parts of an epoch, `FINE` each.
    device : str
        Where the network runs; batches are drawn on the CPU, so that every device sees the same.

    Returns
    -------
    History
    """
    together = Processes.current(device)
    net.to(device)
    decay = [p for p in net.parameters() if p.ndim > 1]  # published: of all; norms and biases have no need
    other = [p for p in net.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": config.weight_decay}, {"params": other, "weight_decay": 0.0}],
        lr=config.lr,
    )
    history = History()
    best = {name: value.clone() for name, value in net.state_dict().items()}
    if folder is not None and (folder / "last.safetensors").is_file():
        tensors, header = read_state(folder / "last.safetensors")
        if header["key"] != key:
            raise InputError(
                f"{folder} holds a checkpoint of other data or settings; choose another folder or delete it"
            )
        history = History(**header["history"])
        net.load_state_dict(_part(tensors, "model/"))
        best = {name: value.to(device) for name, value in _part(tensors, "best/").items()}
        restore_optimizer(optimizer, tensors)
    together.wait()  # nobody writes before everybody has read
    places = _validation_places(net, config)
    count = batch_count(data, config, care)
    while not history.stopped:
        started, epoch = time.monotonic(), len(history.valid)
        loss = f"validation loss {history.valid[-1]:.4f}, best {history.best:.4f}" if epoch else "first epoch"

        def tell(step: int, epoch: int = epoch, loss: str = loss) -> None:
            # an epoch of thousands of trials takes minutes on a CPU
            progress(FINE * epoch + FINE * step // count, FINE * config.epochs, loss)

        tell(0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, history.valid)
        history.train.append(_one_epoch(net, data, config, care, optimizer, (member, epoch), together, tell))
        # one number for all processes: whether to stop must not differ between them by a last bit
        valid = validation_loss(net, data.valid, config, places)
        history.valid.append(together.sum(valid) / together.size)
        if not np.isfinite(history.train[-1] + history.valid[-1]):
            raise InputError(f"training diverged in epoch {epoch + 1}; lower train.lr (now {config.lr:g})")
        if history.best_epoch < 0 or history.valid[-1] < history.best:
            history.best_epoch = epoch
            best = {name: value.clone() for name, value in net.state_dict().items()}
        history.seconds += together.sum(time.monotonic() - started) / together.size
        history.stopped = _why_stop(history, config)
        if folder is not None and together.first:
            tensors = {f"model/{k}": v for k, v in net.state_dict().items()}
            tensors |= {f"best/{k}": v for k, v in best.items()} | optimizer_tensors(optimizer)
            write_state(folder / "last.safetensors", tensors, {"key": key, "history": vars(history)})
    progress(FINE * config.epochs, FINE * config.epochs, f"trained, best validation loss {history.best:.4f}")
    net.load_state_dict(best)
    net.eval()
    return history


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _why_stop(history: History, config: TrainConfig) -> str:
    epochs = len(history.valid)
    if epochs >= config.epochs:
        return "epochs"
    if epochs > config.warmup_epochs and epochs - 1 - history.best_epoch >= config.patience:
        return "patience"
    return "time budget" if 0 < config.time_budget_s <= history.seconds else ""


def _one_epoch(
    net: BrainIT,
    data: LearningData,
    config: TrainConfig,
    care: CareConfig,
    optimizer: torch.optim.Optimizer,
    key: tuple[int, int],
    together: Processes,
    tell: Callable[[int], None],
) -> float:
    rng = np.random.default_rng([config.seed, *key])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    losses, device = [], net.log_temperature.device
    net.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)) + together.rank)  # dropout
        for step, batch in enumerate(batches(data, config, care, rng)):
            tell(step)
            batch = augment(batch, care, generator)
            places = draw_places(net.shapes, config.positions, generator)
            keep = draw_keep(batch, config, care, generator)
            rows = together.rows(len(batch.betas))
            share = (rows.stop - rows.start) / len(batch.betas)
            optimizer.zero_grad(set_to_none=True)
            loss = torch.zeros((), device=device)
            if share:
                kept = None if keep is None else keep[rows].to(device)
                loss = batch_loss(net, batch.cut(rows).to(device), config, places, kept)
                loss.backward()
            together.mean_gradients(_trained(net, batch.subject), share)
            if config.clip:
                torch.nn.utils.clip_grad_norm_(net.parameters(), config.clip)
            optimizer.step()
            losses.append(loss.detach() * share)
    return together.sum(float(torch.stack(losses).double().mean()))


def _trained(net: BrainIT, subject: str) -> list[torch.nn.Parameter]:
    """Return what a step on one subject trains: embeddings of other subjects get no gradient."""
    mine = f".voxels.{parameter_key(subject)}"
    return [p for name, p in net.named_parameters() if ".voxels." not in name or name.endswith(mine)]


def _validation_places(net: BrainIT, config: TrainConfig) -> list[torch.Tensor | None]:
    """Take the same positions in every validation, twice as many as in a step."""
    generator = torch.Generator().manual_seed(config.seed)
    return draw_places(net.shapes, [2 * n for n in config.positions], generator)


def batch_loss(
    net: BrainIT,
    batch: Batch,
    config: TrainConfig,
    places: list[torch.Tensor | None],
    keep: torch.Tensor | None = None,
) -> torch.Tensor:
    """Loss of one batch at the given structural positions."""
    predicted = net(batch.betas, batch.subject, places, keep)
    if batch.base is not None:
        base = cut_flat(batch.base, net.shapes, places)
        predicted = [p + b for p, b in zip(predicted, base, strict=True)]
    return total_loss(
        predicted,
        cut_flat(batch.target, net.shapes, places),
        net.log_temperature,
        structure_loss=config.structure_loss,
        structure_weight=config.structure_weight,
    )


@torch.no_grad()
def validation_loss(
    net: BrainIT, valid: Mapping[str, Batch], config: TrainConfig, places: list[torch.Tensor | None]
) -> float:
    """Mean loss over all validation trials, in chunks of fixed size."""
    net.eval()
    total, count, device = 0.0, 0, net.log_temperature.device
    for own in valid.values():
        for i in range(0, len(own.betas), _VALIDATION_CHUNK):
            cut = slice(i, i + _VALIDATION_CHUNK)
            part = own.cut(cut)
            n = len(part.betas)
            total += float(batch_loss(net, part.to(device), config, places)) * n
            count += n
    return total / max(count, 1)
