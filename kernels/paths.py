"""Which implementation runs: Triton on CUDA (or under its interpreter), plain torch elsewhere.

There is no silent slow path: asking for Triton where it cannot run raises, and every result names its path.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Literal, NamedTuple

from torch import Tensor

Path = Literal["auto", "reference", "triton"]


class Result(NamedTuple):
    """A value and the path that computed it."""

    value: Tensor
    path: str


HAS_TRITON = find_spec("triton") is not None
"""Whether the triton package is installed (it is not imported)."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton runs on the CPU, one program after the other; Triton itself looks once, when it is imported."""


def choose(path: Path, tensor: Tensor) -> str:
    """Resolve `path` for tensors that live where `tensor` does.

    Raises
    ------
    RuntimeError
        "triton" was asked for and cannot run here.
    """
    if path not in ("auto", "reference", "triton"):
        raise ValueError(f"path must be auto, reference or triton, got {path!r}")
    runnable = HAS_TRITON and (tensor.is_cuda or INTERPRETED)
    if path == "triton" and not runnable:
        why = "triton is not installed" if not HAS_TRITON else f"the tensors are on {tensor.device}"
        raise RuntimeError(f"the Triton path cannot run: {why}; use path='reference', or a CUDA device")
    if path == "auto":
        return "triton" if runnable and tensor.is_cuda else "reference"
    return path
