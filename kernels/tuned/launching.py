"""What every Triton launch needs to know of the device."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
import triton

from kernels.tuned.configs import Config

INTERPRETED_PROGRAMS = 3
"""Programs of a persistent kernel under the interpreter: more than one, so that the walk is tested."""


@lru_cache(maxsize=16)
def multiprocessors(device: torch.device) -> int:
    """Count the programs a persistent kernel starts."""
    if device.type != "cuda":
        return INTERPRETED_PROGRAMS
    return torch.cuda.get_device_properties(device).multi_processor_count


MARGIN = 2048
"""Bytes of shared memory that barriers and reductions take."""


@lru_cache(maxsize=16)
def shared_memory(device: torch.device) -> int:
    """Bytes that the tiles of a program may take."""
    if device.type != "cuda":
        return 2**30
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin - MARGIN


def within(config: Config, size: int, limit: int, rank: int = 0, halving: bool = True) -> Config:
    """Return a config whose tiles fit the shared memory, for `size` bytes a number of what is written.

    A residual is read through it, too, and its size counts, as do factors of a branch of `rank`. With
    `halving` a kernel can store a tile in two pieces.

    Tables are tuned for 16-bit outputs; wider ones, and smaller GPUs, take less at a time.
    """
    while True:
        width = config.block_n // config.halves
        tiles = config.stages * (config.block_m + config.block_n) * config.block_k
        if tiles + config.block_m * width * size + 2 * rank * (config.block_m + width) <= limit:
            return config
        if config.special:
            config = replace(config, special=False, warps=8)
        elif halving and config.halves == 1 and config.block_n >= 128:
            config = replace(config, halves=2)
        elif config.stages > 2:
            config = replace(config, stages=config.stages - 1)
        elif max(config.block_m, config.block_n) > 32:
            wide = config.block_n >= config.block_m
            cut = {"block_n": config.block_n // 2} if wide else {"block_m": config.block_m // 2}
            config = replace(config, halves=1, **cut)
        else:
            return config


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
