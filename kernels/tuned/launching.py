"""What every Triton launch needs to know of the device."""

from __future__ import annotations

import os
from functools import lru_cache

import torch
import triton
import triton.language as tl

from kernels import paths

OVERLAP = os.environ.get("BRAINLAB_OVERLAP") == "1" and not paths.INTERPRETED
"""Whether a kernel may be launched while the one before it ends (programmatic dependent launch, Hopper)."""
INTERPRETED_PROGRAMS = 3
"""Programs of a persistent kernel under the interpreter: more than one, so that the walk is tested."""


@triton.jit
def after_previous(OVERLAP: tl.constexpr):
    """Wait until the kernel before has ended, and let the next one be launched: what a kernel does first."""
    if OVERLAP:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


def overlapped() -> dict[str, bool]:
    """Launch options of a kernel that begins with `after_previous`."""
    return {"OVERLAP": OVERLAP, **({"launch_pdl": True} if OVERLAP else {})}


@lru_cache(maxsize=16)
def multiprocessors(device: torch.device) -> int:
    """Count the programs a persistent kernel starts."""
    if device.type != "cuda":
        return INTERPRETED_PROGRAMS
    return torch.cuda.get_device_properties(device).multi_processor_count


def allow_descriptors() -> None:
    """Let Triton take the scratch memory that descriptors built in a kernel need from torch's allocator."""
    triton.set_allocator(_scratch)


def _scratch(size: int, alignment: int, stream: int | None) -> torch.Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.empty(size, dtype=torch.int8, device=device)
