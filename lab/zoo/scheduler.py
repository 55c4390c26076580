"""The sampler's ladders of times that the zoo uses, as diffusers schedulers."""

from __future__ import annotations

from typing import Any

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.configuration_utils import register_to_config


class RectifiedFlowScheduler(FlowMatchEulerDiscreteScheduler):
    """Euler steps of a rectified flow at equal distances: s = 1, 1 - 1/n, ..., 1/n (`lab.zoo.sampling`).

    The parent's own default ends with a step of almost no length at s = 1/1000.
    """

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: list[float] | None = None,
        **options: Any,
    ) -> None:
        """Set the times; as the parent, but equally spaced unless ``sigmas`` are given."""
        if sigmas is None and num_inference_steps is not None and options.get("timesteps") is None:
            sigmas = np.linspace(1, 0, num_inference_steps, endpoint=False).tolist()
        super().set_timesteps(num_inference_steps, device=device, sigmas=sigmas, **options)


class PartwayFlowScheduler(RectifiedFlowScheduler):
    """Equal Euler steps from s = ``strength`` down, as the decoder runs them after a structural picture.

    Parameters
    ----------
    num_train_timesteps, shift
        As the parent's.
    strength : float
        Where the way starts, above 0 and at most 1; sampling begins at (1 - s) picture + s noise.
    """

    @register_to_config
    def __init__(self, num_train_timesteps: int = 1000, shift: float = 1.0, strength: float = 1.0) -> None:
        super().__init__(num_train_timesteps=num_train_timesteps, shift=shift)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: list[float] | None = None,
        **options: Any,
    ) -> None:
        """Set the times; ``num_inference_steps`` are those that run, all below ``strength``."""
        if sigmas is None and num_inference_steps is not None and options.get("timesteps") is None:
            sigmas = np.linspace(self.config.strength, 0, num_inference_steps, endpoint=False).tolist()
        super().set_timesteps(num_inference_steps, device=device, sigmas=sigmas, **options)


def zoo_scheduler() -> RectifiedFlowScheduler:
    """Return the scheduler that samples the zoo's denoisers; ``set_timesteps(n)`` gives its times."""
    return RectifiedFlowScheduler(num_train_timesteps=1000, shift=1.0)
