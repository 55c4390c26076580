"""The one sampler: any diffusers denoiser, any scheduler, guidance, a picture to start from."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from quant.denoisers.families import call
from quant.errors import InputError
from quant.layers.native.replays import replayed
from quant.progress import Progress


@dataclass(frozen=True)
class Step:
    """One step of a batch, for looking only.

    Attributes
    ----------
    index : int
        0, 1, ... along the way.
    timestep : float
        As the scheduler counts.
    rows : slice
        Which samples these are.
    x : tensor of shape (n, C, H, W)
        The state before the step, as the scheduler keeps it.
    seen : tensor of shape (n, C, H, W)
        What the model is given: `x` as the scheduler scales it.
    output : float32 tensor of shape (n, C, H, W)
        The prediction after guidance.
    """

    index: int
    timestep: float
    rows: slice
    x: Tensor
    seen: Tensor
    output: Tensor


def predict(model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensor | None) -> Tensor:
    """Prediction of a denoiser of any family (`quant.denoisers.families`).

    Parameters
    ----------
    model : torch.nn.Module
        Takes ``timestep`` by keyword and returns ``.sample`` or a tensor, as diffusers denoisers do.
    x : tensor of shape (n, C, H, W)
    timestep : tensor of shape (n,) or (1,)
        As the scheduler counts, whatever the model's own unit is.
    condition : tensor of shape (n, T, D), (n,) for class labels, or None
        More than tokens is packed by `quant.denoisers.families.pack`.

    Returns
    -------
    tensor of shape (n, C, H, W)
        In the model's dtype; where the model predicts mean and variance, the mean.
    """
    return call(model, x, timestep, condition)


def guided(
    model: nn.Module,
    x: Tensor,
    timestep: Tensor,
    condition: Tensor | None,
    null: Tensor | None,
    guidance: float,
    apart: bool = False,
) -> Tensor:
    """Prediction after classifier-free guidance, v0 + g (v - v0) (Ho and Salimans 2022).

    Parameters
    ----------
    null : tensor of shape (...) or None
        Condition of nothing; without it, or with ``guidance`` 1, the model is asked once.
    apart : bool
        Ask for the two branches one after the other, in place of one call of twice the batch. Equal but for
        the last digit; recordings are made so, and their bytes depend on it.
    """
    if condition is None or null is None or guidance == 1.0:
        return predict(model, x, timestep, condition)
    nothing = null.to(condition).expand_as(condition)
    if apart:
        held, free = (predict(model, x, timestep, c) for c in (condition, nothing))
    else:
        times = timestep.reshape(-1)
        times = times if len(times) == 1 else torch.cat([times, times])
        free, held = predict(model, torch.cat([x, x]), times, torch.cat([nothing, condition])).chunk(2)
    return free + guidance * (held - free)


@torch.no_grad()
def sample(
    model: nn.Module,
    scheduler: Any,
    noise: Tensor,
    condition: Tensor | None = None,
    null: Tensor | None = None,
    *,
    steps: int,
    guidance: float = 1.0,
    strength: float = 1.0,
    start: Tensor | None = None,
    batch: int = 64,
    generator: Callable[[int], torch.Generator] | None = None,
    apart: bool = False,
    see: Callable[[Step], None] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Follow a scheduler from noise, or from a picture under noise, to the end.

    Parameters
    ----------
    model : torch.nn.Module
        Of any family that `quant.denoisers.families` knows, on any device. One that runs natively on a GPU is
        called through CUDA graphs where they give the same bytes (`quant.layers.native.replays`).
    scheduler : diffusers scheduler
        Its timesteps are set anew for every batch.
    noise : float32 tensor of shape (n, C, H, W)
        Unit variance; everything stays on its device.
    condition : tensor of shape (n, ...) or None
    null : tensor of shape (...) or None
        Needed for ``guidance`` other than 1.
    steps : int
    guidance : float
        1 is none.
    strength : float
        Where the way starts: 1 is pure noise, smaller keeps more of `start` (SDEdit, Meng et al. 2022).
        Below 1 only with schedulers of flows, whose times are noise levels 0 to 1.
    start : tensor of shape (n, C, H, W), optional
    batch : int
        Samples at a time (twice as many in a call with guidance).
    generator : callable, optional
        ``generator(row)``: one generator per sample for a stochastic scheduler's own noise, so that a sample
        does not depend on its batch mates. Schedulers that draw nothing never ask.
    apart : bool
        See `guided`.
    see : callable, optional
        Receives every `Step` before it is taken.
    progress : callable, optional
        In steps of batches.

    Returns
    -------
    float32 tensor of shape (n, C, H, W)
        On the noise's device.

    Raises
    ------
    InputError
        ``strength`` below 1 with a scheduler that takes no noise levels.
    """
    draws = generator is not None and "generator" in inspect.signature(scheduler.step).parameters
    scales = hasattr(scheduler, "scale_model_input")
    total, out = -(-len(noise) // batch), []
    with replayed(model):
        for number in range(total):
            rows = slice(number * batch, min((number + 1) * batch, len(noise)))
            c = None if condition is None else condition[rows]
            set_times(scheduler, steps, strength)
            x = noise[rows] * float(getattr(scheduler, "init_noise_sigma", 1.0))
            if start is not None:
                x = (1 - strength) * start[rows] + strength * x
            options: dict[str, Any] = {}
            if draws and generator is not None:
                options["generator"] = [generator(row) for row in range(rows.start, rows.stop)]
            times = scheduler.timesteps.to(x.device)  # once: a copy each step would wait for the device
            for index, t in enumerate(scheduler.timesteps):
                seen = scheduler.scale_model_input(x, t) if scales else x
                output = guided(model, seen, times[index].reshape(1), c, null, guidance, apart).float()
                output = output.to(x.device)
                if see is not None:
                    see(Step(index, float(t), rows, x, seen, output))
                x = scheduler.step(output, t, x, **options).prev_sample.float()
                if progress is not None:
                    progress(number * len(times) + index + 1, total * len(times), "sampling")
            out.append(x)
    return torch.cat(out)


def set_times(scheduler: Any, steps: int, strength: float = 1.0) -> None:
    """Set a scheduler's times for `steps` steps, from noise level `strength` down.

    Raises
    ------
    InputError
        ``strength`` below 1 with a scheduler whose times are not noise levels.
    """
    if strength == 1.0:
        scheduler.set_timesteps(steps)
    elif "sigmas" in inspect.signature(scheduler.set_timesteps).parameters:
        scheduler.set_timesteps(sigmas=np.linspace(strength, 0, steps, endpoint=False).tolist())
    else:
        raise InputError(
            f"strength is {strength:g}, and {type(scheduler).__name__} starts from pure noise only: use 1, "
            "or a scheduler of flows such as FlowMatchEulerDiscreteScheduler"
        )


def settings_of(scheduler: Any) -> dict[str, Any]:
    """Return a scheduler's settings as a recording keeps them: what is plain JSON, names in order."""
    plain = (bool, int, float, str, type(None))
    found = {}
    for name, value in sorted(dict(scheduler.config).items()):
        many = isinstance(value, (list, tuple)) and not name.startswith("_")
        if isinstance(value, plain) or (many and all(isinstance(one, plain) for one in value)):
            found[name] = list(value) if many else value
    return found


def settled(kind: Any, config: dict[str, Any], steps: int) -> dict[str, Any]:
    """Return the settings that a scheduler of these has once its times are set: some change them then."""
    if not hasattr(kind, "from_config"):
        return {}
    twin = kind.from_config(config)
    twin.set_timesteps(steps)
    return settings_of(twin)


def derived_seed(seed: int, key: int, purpose: str) -> int:
    """Derive a seed for one purpose of one sample, unrelated to its neighbours'."""
    return int.from_bytes(
        hashlib.blake2b(f"{seed}|{key}|{purpose}".encode(), digest_size=7).digest(), "little"
    )


def start_noise(seed: int, key: int, shape: Sequence[int]) -> Tensor:
    """Draw the starting noise of one sample, on the CPU in float32."""
    return torch.randn(
        tuple(shape), generator=torch.Generator().manual_seed(derived_seed(seed, key, "noise"))
    )


def generators(seed: int, keys: Sequence[int]) -> Callable[[int], torch.Generator]:
    """Return the ``generator`` of `sample` for samples with these keys."""
    return lambda row: torch.Generator().manual_seed(derived_seed(seed, keys[row], "steps"))
