"""Repeat the sampling of a recording with another model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from quant.errors import InputError
from quant.recordings import sampling
from quant.recordings.shards import hash_tensor
from quant.recordings.trajectories import Trajectories


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
        Another scheduler, another setting of it, or another null condition than the recording's.
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
        given, recorded = sampling.settings_of(scheduler), known["scheduler_config"]
        names = [name for name in sorted(set(given) & set(recorded)) if not name.startswith("_")]
        changed = [name for name in names if given[name] != recorded[name]]
        if changed:  # some settle settings themselves once they know the number of steps
            settled = sampling.settled(type(scheduler), recorded, known["n_steps"])
            for name in (name for name in changed if given[name] != settled.get(name, recorded[name])):
                raise InputError(
                    f"the recording at {trajectories.path} used {known['scheduler']} with {name} = "
                    f"{recorded[name]!r:.60}, got {given[name]!r:.60}: pass the scheduler it was made with"
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
        return sampling.guided(model, x, timestep, condition, self.null, self.guidance, apart=True)

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
        known, scheduler = self.trajectories.settings, self.scheduler
        samples = [self.trajectories.sample(key) for key in keys]
        # the recording holds *model inputs*; at the first step they are the scaled noise
        scheduler.set_timesteps(known["n_steps"])
        unit = torch.full((1,), float(getattr(scheduler, "init_noise_sigma", 1.0)))
        if hasattr(scheduler, "scale_model_input"):
            unit = scheduler.scale_model_input(unit, scheduler.timesteps[0])
        noise = torch.stack([sample["x"][0] for sample in samples]) / unit.reshape(-1)[0]
        condition = torch.stack([s["condition"] for s in samples]) if "condition" in samples[0] else None
        inputs: list[Tensor] = []
        final = sampling.sample(
            model, scheduler, noise, condition, self.null,
            steps=steps or known["n_steps"], guidance=self.guidance, batch=len(keys),
            generator=sampling.generators(known["seed"], keys), apart=True,
            see=lambda step: inputs.append(step.x),
        )  # fmt: skip
        return inputs, final
