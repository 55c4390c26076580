"""One training loop for every model of the zoo: compiled whole, averaged weights, resumable."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from brainit.processes import Processes
from lab.errors import InputError
from lab.files import replacing
from lab.progress import Progress, silent

StepLoss = Callable[..., torch.Tensor]
Prepare = Callable[[torch.Tensor], tuple[Any, ...]]
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How one model is trained.

    Parameters
    ----------
    steps : int
        Optimiser steps; the learning rate falls to zero along a cosine over them.
    batch : int
        Pictures a step.
    lr : float
        Peak learning rate of AdamW, after ``warmup`` steps.
    ema : float
        Decay of the averaged weights that are kept in the end.
    """

    steps: int
    batch: int
    lr: float
    weight_decay: float = 0.01
    warmup: int = 200
    ema: float = 0.999
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """What a training run came to: the averaged weights are in the module; this goes into the model card."""

    steps: int
    batch: int
    seconds: float
    final_loss: float
    device: str


def fit(
    model: nn.Module,
    step_loss: StepLoss,
    n_examples: int,
    recipe: Recipe,
    state_file: Path,
    *,
    seed: int = 0,
    minutes: float | None = None,
    save_every: float = 120.0,
    prepare: Prepare | None = None,
    compiled: bool = True,
    progress: Progress = silent,
) -> Outcome:
    """Train ``model`` in place and leave its averaged (EMA) weights in it.

    With ``prepare``, several processes (``accelerate launch``) learn what one does: each prepares the same
    batch from the same seed and takes its rows of every tensor that has one row for each example.

    Parameters
    ----------
    step_loss : callable
        ``step_loss(model, index, noise_key) -> scalar``; ``index`` (batch,) says which examples,
        ``noise_key`` is an int64 tensor that changes each step. On CUDA it is compiled together with the
        model and runs in bfloat16.
    prepare : callable, optional
        ``prepare(index) -> (a, b, ...)`` makes what ``step_loss(model, a, b, ...)`` gets in place of index
        and key; it is not compiled, and may draw from torch's generators.
    compiled : bool
        Whether to compile on CUDA; not worth it where shapes change from step to step.
    state_file : Path
        Weights, averages, optimiser moments and the step, written every ``save_every`` seconds. If it is
        there, the run goes on from it; data order depends on seed and step alone, so the result is the same
        (with ``minutes``, the pace of the machine decides too).
    minutes : float, optional
        Time budget: the learning rate then falls with the share of time used if that is ahead of the steps.
    """
    device = next(model.parameters()).device
    cuda = device.type == "cuda"
    together = Processes.current(device.type)
    if together.size > 1 and prepare is None:
        raise InputError(
            f"this training runs in one process, not in {together.size}: start it without launch"
        )
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=cuda
    )
    average = [p.detach().clone() for p in parameters]
    start, spent, last = _restore(state_file, model, average, optimiser)
    together.wait()  # nobody writes before everybody has read
    step_fn = torch.compile(step_loss) if cuda and compiled else step_loss
    generator = torch.Generator(device=device)
    began, saved, loss, step = time.monotonic(), time.monotonic(), torch.tensor(last, device=device), start
    model.train()
    for step in range(start, recipe.steps):
        elapsed = spent + time.monotonic() - began
        used = together.sum(elapsed) / together.size / (60 * minutes) if minutes else 0.0
        share = max(step / recipe.steps, used)
        if share >= 1:
            break
        rate = recipe.lr * min(1.0, (step + 1) / recipe.warmup) * (0.5 + 0.5 * math.cos(math.pi * share))
        for group in optimiser.param_groups:
            group["lr"] = rate
        generator.manual_seed(seed * 1_000_003 + step)
        index = torch.randint(n_examples, (recipe.batch,), generator=generator, device=device)
        torch.manual_seed(seed * 1_000_003 + step)
        given = (index, torch.tensor(step)) if prepare is None else prepare(index)
        rows = together.rows(recipe.batch)
        if together.size > 1:
            given = tuple(_rows(value, rows, recipe.batch) for value in given)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=cuda):
            loss = step_fn(model, *given)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        together.mean_gradients(parameters, (rows.stop - rows.start) / recipe.batch)
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimiser.step()
        torch._foreach_lerp_(
            average, [p.detach() for p in parameters], 1 - min(recipe.ema, (step + 1) / (step + 10))
        )
        if step % 50 == 0:
            value = float(loss.detach())
            if not math.isfinite(value):
                raise RuntimeError(
                    f"the loss became {value} at step {step}; train with a lower learning rate"
                )
            progress(step, recipe.steps, f"loss {value:.4f}")
        if together.first and time.monotonic() - saved > save_every:
            note = {"step": step + 1, "spent": spent + time.monotonic() - began, "loss": float(loss.detach())}
            _save(state_file, model, average, optimiser, note)
            saved = time.monotonic()
    else:
        step = recipe.steps
    seconds, last = spent + time.monotonic() - began, float(loss.detach())
    if together.first:
        _save(state_file, model, average, optimiser, {"step": step, "spent": seconds, "loss": last})
    together.wait()
    with torch.no_grad():
        for p, a in zip(parameters, average, strict=True):
            p.copy_(a)
    model.eval()
    name = torch.cuda.get_device_name(device) if cuda else "CPU"
    return Outcome(step, recipe.batch, seconds, last, name)


def _rows(value: Any, rows: slice, batch: int) -> Any:
    """Return this process's rows of a tensor with one row for each example; anything else as it is."""
    return value[rows] if isinstance(value, torch.Tensor) and value.shape[:1] == (batch,) else value


def _save(
    path: Path,
    model: nn.Module,
    average: list[torch.Tensor],
    optimiser: torch.optim.Optimizer,
    note: dict[str, float],
) -> None:
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    state |= {f"average.{i}": a for i, a in enumerate(average)}
    for i, p in enumerate(optimiser.param_groups[0]["params"]):
        state |= {f"optimiser.{i}.{k}": torch.as_tensor(v) for k, v in optimiser.state.get(p, {}).items()}
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    with replacing(path) as temporary:
        save_file(plain, temporary, metadata={"state": json.dumps(note)})


def _restore(
    path: Path, model: nn.Module, average: list[torch.Tensor], optimiser: torch.optim.Optimizer
) -> tuple[int, float, float]:
    """Read a training state into its parts; return the step, the seconds spent and the last loss."""
    if not path.is_file():
        return 0, 0.0, 0.0
    with safe_open(path, framework="pt") as f:
        note = json.loads(f.metadata()["state"])
        tensors = {k: f.get_tensor(k) for k in f.keys()}
    model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    for i, a in enumerate(average):
        a.copy_(tensors[f"average.{i}"])
    for i, p in enumerate(optimiser.param_groups[0]["params"]):
        prefix = f"optimiser.{i}."
        moments = {k.removeprefix(prefix): v.to(p.device) for k, v in tensors.items() if k.startswith(prefix)}
        for name in moments.keys() - {"step"}:  # a file does not keep the order of dimensions
            moments[name] = torch.empty_like(p).copy_(moments[name])
        if moments:
            optimiser.state[p] = moments
    _LOG.info("going on from step %d", note["step"])
    return int(note["step"]), float(note["spent"]), float(note.get("loss", 0.0))
