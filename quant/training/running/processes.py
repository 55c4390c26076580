"""Several processes that train one model, as `accelerate launch` starts them: each its rows, one gradient."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Processes:
    """How many there are, and which one this is."""

    count: int = 1
    index: int = 0

    @classmethod
    def here(cls) -> Processes:
        """Read from what the launcher left; a process alone does not load accelerate."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        from accelerate import PartialState

        state = PartialState()
        return cls(state.num_processes, state.process_index)

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Mean of the gradients of all processes, in each of them."""
        if self.count < 2:
            return
        from accelerate.utils import reduce

        trained = list(parameters)
        if not trained:
            return
        # a row of a table has a gradient only where its timestep was drawn
        flags = torch.tensor([float(p.grad is not None) for p in trained], device=trained[0].device)
        anywhere = reduce(flags, "sum") > 0
        for parameter, used in zip(trained, anywhere.tolist(), strict=True):
            if used:
                mine = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = reduce(mine, "mean")
