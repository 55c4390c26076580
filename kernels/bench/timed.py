"""What is timed, and against what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

ROWS = 64
"""Rows of the output that errors are measured on."""


@dataclass
class Timed:
    """One thing to time.

    Attributes
    ----------
    what : str
    calls : list of callables
        Timed one after the other in one graph; several where weights must not stay in the cache.
    exact : callable, optional
        Result in float64 of the first call's rows `ROWS`, for the error.
    bytes, operations : float
        Least traffic with memory and arithmetic of a call, for the floors.
    peer : bool
        Somebody else's.
    """

    what: str
    calls: list[Callable[[], Tensor]]
    exact: Callable[[], Tensor] | None = None
    bytes: float = 0.0
    operations: float = 0.0
    unit: str = "fp8"
    peer: bool = False
