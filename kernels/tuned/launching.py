"""What every Triton launch needs to know of the device."""

from __future__ import annotations

from functools import lru_cache

import torch
import triton

INTERPRETED_PROGRAMS = 3
"""Programs of a persistent kernel under the interpreter: more than one, so that the walk is tested."""


@lru_cache(maxsize=16)
def multiprocessors(device: torch.device) -> int:
    """Count the programs a persistent kernel starts."""
    if device.type != "cuda":
        return INTERPRETED_PROGRAMS
    return torch.cuda.get_device_properties(device).multi_processor_count


COUNTERS = 2**18
"""Counters of a device for launches in graphs."""
_eager: dict[tuple[torch.device, int], torch.Tensor] = {}
_graphs: dict[torch.device, torch.Tensor] = {}


def counters(device: torch.device, count: int) -> torch.Tensor:
    """Get int32 zeros that programs of a launch count in; the last program puts the zeros back.

    Launches of a stream come one after the other and share theirs. A launch in a graph has some of its own,
    since graphs may run side by side.
    """
    if device.type != "cuda":
        return torch.zeros(count, dtype=torch.int32, device=device)
    if torch.cuda.is_current_stream_capturing():
        left = _graphs.get(device)
        if left is None or left.numel() < count:
            return torch.zeros(count, dtype=torch.int32, device=device)  # cleared by the graph itself
        _graphs[device] = left[count:]
        return left[:count]
    if device not in _graphs:
        _graphs[device] = torch.zeros(COUNTERS, dtype=torch.int32, device=device)
    key = (device, torch.cuda.current_stream(device).cuda_stream)
    if key not in _eager or _eager[key].numel() < count:
        _eager[key] = torch.zeros(max(count, 4096), dtype=torch.int32, device=device)
    return _eager[key][:count]


def allow_descriptors() -> None:
    """Let Triton take the scratch memory that descriptors built in a kernel need from torch's allocator."""
    triton.set_allocator(_scratch)


def _scratch(size: int, alignment: int, stream: int | None) -> torch.Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.empty(size, dtype=torch.int8, device=device)
