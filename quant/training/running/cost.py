"""What training costs: seconds, peak memory, steps."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass
class Meter:
    """Adds up over tasks and over stops.

    Attributes
    ----------
    seconds : float
        Wall-clock, of all processes' slowest.
    peak_bytes : int
        Of the GPU where there is one, else of the process.
    steps : int
        That these seconds were spent on.
    """

    seconds: float = 0.0
    peak_bytes: int = 0
    steps: int = 0
    _begun: float | None = None

    @contextmanager
    def running(self, device: str) -> Iterator[None]:
        """Count the time of a block."""
        cuda = device.startswith("cuda")
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        self._begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds, self._begun = self.elapsed(), None
            peak = torch.cuda.max_memory_allocated(device) if cuda else _process_bytes()
            self.peak_bytes = max(self.peak_bytes, peak)

    def elapsed(self) -> float:
        """Seconds so far."""
        return self.seconds + (0.0 if self._begun is None else time.perf_counter() - self._begun)

    def per_step(self, steps: int) -> float:
        """Mean seconds a step."""
        return self.elapsed() / max(1, steps)

    def add(self, other: Meter) -> None:
        """Take another task's cost in."""
        self.seconds += other.seconds
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        self.steps += other.steps

    def summary(self) -> dict[str, Any]:
        """For a ledger."""
        return {"seconds": round(self.seconds, 3), "peak_bytes": self.peak_bytes, "steps": self.steps}

    def values(self) -> dict[str, Any]:
        """JSON values; `Meter(**values)` goes on from them."""
        return {**asdict(self), "seconds": self.elapsed(), "_begun": None}


def _process_bytes() -> int:
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
