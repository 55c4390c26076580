"""Call any diffusers denoiser the same way, and follow its sampler."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from quant.denoisers.families import call
from quant.errors import InputError
from quant.recordings.shards import hash_tensor
from quant.recordings.trajectories import Trajectories, _derived


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


class Sampler:
    """Repeat the sampling that made a recording, with any model, from the recorded noise.

    Parameters
    ----------
    trajectories : Trajectories
    scheduler : diffusers scheduler
        Of the recording's class and config.
    null_condition : tensor, optional
        Needed if the recording was made with guidance.

    Raises
    ------
    InputError
        Another scheduler or another null condition than the recording's.
    """

    def __init__(
        self, trajectories: Trajectories, scheduler: Any, null_condition: Tensor | None = None
    ) -> None:
        known = trajectories.settings
        if type(scheduler).__name__ != known["scheduler"]:
            raise InputError(
                f"the recording at {trajectories.path} used {known['scheduler']}, got "
                f"{type(scheduler).__name__}: pass the scheduler it was made with"
            )
        self.guidance = float(known["guidance"])
        if self.guidance != 1.0 and (
            null_condition is None or hash_tensor(null_condition) != known["null_condition"]
        ):
            raise InputError(
                f"the recording at {trajectories.path} has guidance {self.guidance:g}: pass the "
                "null_condition it was made with"
            )
        self.trajectories, self.scheduler, self.null = trajectories, scheduler, null_condition

    def guided(self, model: nn.Module, x: Tensor, timestep: Tensor, condition: Tensor | None) -> Tensor:
        """Prediction after classifier-free guidance."""
        out = predict(model, x, timestep, condition)
        if self.guidance == 1.0 or self.null is None or condition is None:
            return out
        base = predict(model, x, timestep, self.null.to(condition).expand_as(condition))
        return base + self.guidance * (out - base)

    @torch.no_grad()
    def run(self, model: nn.Module, keys: list[int], steps: int | None = None) -> tuple[list[Tensor], Tensor]:
        """Sample from the recorded noise.

        Parameters
        ----------
        model : torch.nn.Module
        keys : list of int
            Samples of the recording.
        steps : int, optional
            Of the sampler; the recording's number if left out.

        Returns
        -------
        inputs : list of float32 tensor of shape (n, C, H, W)
            The state before each step, as the scheduler keeps it.
        final : float32 tensor of shape (n, C, H, W)
        """
        self.scheduler.set_timesteps(steps or self.trajectories.settings["n_steps"])
        samples = [self.trajectories.sample(key) for key in keys]
        # the recording holds *model inputs*; at the first step they are the scaled noise
        x = torch.stack([sample["x"][0] for sample in samples])
        first = self.scheduler.timesteps[0]
        if hasattr(self.scheduler, "scale_model_input"):
            unit = self.scheduler.scale_model_input(torch.ones(1), first)
            x = x / unit.reshape(-1)[0]
            self.scheduler.set_timesteps(steps or self.trajectories.settings["n_steps"])
        condition = torch.stack([s["condition"] for s in samples]) if "condition" in samples[0] else None
        seed, options, inputs = self.trajectories.settings["seed"], {}, []
        if "generator" in inspect.signature(self.scheduler.step).parameters:
            options["generator"] = [
                torch.Generator().manual_seed(_derived(seed, key, "steps")) for key in keys
            ]
        for timestep in self.scheduler.timesteps:
            inputs.append(x)
            scaled = (
                self.scheduler.scale_model_input(x, timestep)
                if hasattr(self.scheduler, "scale_model_input")
                else x
            )
            out = self.guided(model, scaled, timestep.reshape(1), condition).float().cpu()
            x = self.scheduler.step(out, timestep, x, **options).prev_sample.float()
        return inputs, x
