"""Run the full-precision model over recorded trajectories while somebody looks at its layers' inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from quant.errors import MissingDataError
from quant.families import call
from quant.trajectories import Trajectories

Progress = Callable[[int, int, str], None]
See = Callable[[str, Tensor, float], None]


@torch.no_grad()
def replay(
    model: nn.Module,
    trajectories: Trajectories,
    *,
    subset: str = "calibrate",
    samples: int | None = None,
    batch_size: int = 8,
    progress: Progress | None = None,
    step: Callable[[float], None] | None = None,
) -> None:
    """Feed the recorded inputs through `model`, one timestep a call, in sampling order.

    Parameters
    ----------
    model : torch.nn.Module
        In the mode and on the device it is in.
    trajectories : Trajectories
    subset : str
    samples : int, optional
        The first so many of the subset; all by default.
    batch_size : int
        Samples a call.
    progress : callable
        In samples.
    step : callable
        Called with the timestep before each forward.

    Raises
    ------
    MissingDataError
        The subset has no samples.
    """
    keys = trajectories.keys(subset)[:samples]
    if not keys:
        raise MissingDataError(
            f"the recording at {trajectories.path} has {len(trajectories)} samples and none in {subset!r}: "
            "record more with quant.record"
        )
    for start in range(0, len(keys), batch_size):
        part = [trajectories.sample(key) for key in keys[start : start + batch_size]]
        inputs = torch.stack([sample["x"] for sample in part], dim=1)
        rows = [sample["condition"] for sample in part if "condition" in sample]
        condition = torch.stack(rows) if rows else None
        for index, timestep in enumerate(trajectories.timesteps):
            if step is not None:
                step(timestep)
            times = torch.full((len(part),), timestep)
            call(model, inputs[index], times, condition)
        if progress is not None:
            progress(start + len(part), len(keys), "calibrating")


def watch(
    model: nn.Module, trajectories: Trajectories, names: Iterable[str], see: See, **options: object
) -> None:
    """`replay` with ``see(name, input, timestep)`` called for every input of the layers `names`.

    What is kept of an input is up to `see`; nothing is kept here. Hooks are removed whatever happens.
    """
    now = [0.0]
    modules = dict(model.named_modules())

    def hook(name: str) -> Callable:
        def look(module: nn.Module, args: tuple, kwargs: dict) -> None:
            see(name, (args[0] if args else kwargs["input"]).detach(), now[0])

        return look

    handles = [modules[name].register_forward_pre_hook(hook(name), with_kwargs=True) for name in names]
    try:
        replay(model, trajectories, step=lambda value: now.__setitem__(0, value), **options)  # type: ignore
    finally:
        for handle in handles:
            handle.remove()
