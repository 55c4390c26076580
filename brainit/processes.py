"""The same training in several processes: who takes which rows, and one mean gradient for all of them.

Every process draws the same batch from the same seed, works on its rows of it, and steps with the mean
gradient of the whole batch; so the number of processes does not change what is learned (but dropout, whose
masks each process draws for its rows). ``accelerate launch --num_processes N`` starts them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch


def launched() -> int:
    """Return how many processes a launcher started; known before they have found each other."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process among those, so that the first can claim a folder for all."""
    return int(os.environ.get("RANK", "0")) if launched() > 1 else 0


@dataclass(frozen=True)
class Processes:
    """One process among those that train together.

    Parameters
    ----------
    rank : int
        Number of this process, from 0; the first writes files and reports.
    size : int
        How many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls, device: str = "cpu") -> Processes:
        """Return those that ``accelerate launch`` (or torchrun) started, or this process alone."""
        if launched() < 2:
            return cls()
        from accelerate import PartialState

        state = PartialState(cpu=device == "cpu")
        return cls(state.process_index, state.num_processes)

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def device(self, device: str) -> str:
        """Return this process's device: of several GPUs the one of its local rank."""
        several = device == "cuda" and self.size > 1
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if several else device

    def rows(self, n: int) -> slice:
        """Return this process's rows of a batch of n."""
        bounds = np.linspace(0, n, self.size + 1).round().astype(int)
        return slice(int(bounds[self.rank]), int(bounds[self.rank + 1]))

    def wait(self) -> None:
        """Wait until every process is this far, as before a file is read that the first one writes."""
        if self.size > 1:
            torch.distributed.barrier()

    def mean_gradients(self, parameters: Iterable[torch.nn.Parameter], share: float) -> None:
        """Replace the gradients by their mean over the whole batch.

        Parameters
        ----------
        parameters : iterable of Parameter
            Those that the step trains, in the same order everywhere; one without a gradient counts as 0.
        share : float
            This process's share of the batch's rows, 0..1; its gradients are of the mean over its rows.
        """
        if self.size == 1:
            return
        trained = list(parameters)
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.flatten() for parameter in trained]) * share
        torch.distributed.all_reduce(flat)
        for parameter, mean in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            parameter.grad.copy_(mean.view_as(parameter))

    def sum(self, value: float) -> float:
        """Return the sum of a number over all processes."""
        if self.size == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64)
        if torch.distributed.get_backend() == "nccl":
            total = total.to(self.device("cuda"))
        torch.distributed.all_reduce(total)
        return float(total)
