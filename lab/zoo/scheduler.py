"""The sampler's ladder of times that the zoo uses, as a diffusers scheduler."""

from __future__ import annotations

from typing import Any

import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler


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


def zoo_scheduler() -> RectifiedFlowScheduler:
    """Return the scheduler that samples the zoo's denoisers; ``set_timesteps(n)`` gives its times."""
    return RectifiedFlowScheduler(num_train_timesteps=1000, shift=1.0)
