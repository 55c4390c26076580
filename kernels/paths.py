"""Which implementation runs: Triton on CUDA (or under its interpreter), plain torch elsewhere.

There is no silent slow path: asking for Triton where it cannot run raises, and every result names its path.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Path = Literal["auto", "reference", "triton"]


class Result(NamedTuple):
    """A value and the path that computed it."""

    value: Tensor
    path: str


HAS_TRITON = find_spec("triton") is not None
"""Whether the triton package is installed (it is not imported)."""

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton runs on the CPU, one program after the other; Triton looks once, when imported."""


FLOAT8 = (8, 9)
"""Compute capability from which tensor cores multiply float8."""


def choose(path: Path, tensor: Tensor, needs: tuple[int, int] = (8, 0)) -> str:
    """Resolve `path` for tensors that live where `tensor` does.

    Parameters
    ----------
    path : str in {"auto", "reference", "triton"}
    tensor : Tensor
    needs : tuple of int
        Least compute capability of a GPU that can run the operation.

    Raises
    ------
    RuntimeError
        "triton" was asked for and cannot run here.
    """
    if path not in ("auto", "reference", "triton"):
        raise ValueError(f"path must be auto, reference or triton, got {path!r}")
    if path == "reference":
        return path
    why = obstacle(tensor.device, needs)
    if path == "triton":
        if why:
            raise RuntimeError(f"the Triton path cannot run: {why}; use path='reference', or another device")
        return path
    return "triton" if not why and tensor.is_cuda else "reference"


def obstacle(device: torch.device, needs: tuple[int, int] = (8, 0)) -> str:
    """Say why Triton kernels cannot run on a device; empty where they can.

    Parameters
    ----------
    device : torch.device
    needs : tuple of int
        Least compute capability.
    """
    if not HAS_TRITON:
        return "triton is not installed"
    if device.type != "cuda":
        return "" if INTERPRETED else f"the tensors are on {device}"
    found = capability(device)
    if found < needs:
        return f"the GPU has compute capability {found[0]}.{found[1]}, this takes {needs[0]}.{needs[1]}"
    return ""


@lru_cache(maxsize=16)
def capability(device: torch.device) -> tuple[int, int]:
    """Compute capability of a CUDA device."""
    return torch.cuda.get_device_capability(device)


def check_contiguous(operation: str, **tensors: Tensor | None) -> None:
    """Refuse tensors whose numbers are not neighbours, since kernels read them so.

    Raises
    ------
    ValueError
        Names the operation, the tensor and its strides.
    """
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(
                f"{operation}: {name} must be contiguous, got strides {tensor.stride()}; call .contiguous()"
            )


def check_device(operation: str, first: Tensor, *others: Tensor | None) -> None:
    """Refuse tensors that do not lie where the first does.

    Raises
    ------
    ValueError
        Names the operation and both places.
    """
    for other in others:
        if other is not None and other.device != first.device:
            raise ValueError(
                f"{operation}: all tensors must lie on {first.device}, got one on {other.device}"
            )
