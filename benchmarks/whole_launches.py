"""What a whole model launches: its Triton kernels compiled side by side, and GPU time by kernel."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

MOST = 40
"""Kernels of a table, those that take longest."""
THREADS = 16
_only_built: ContextVar[bool] = ContextVar("only_built", default=False)


@contextmanager
def only_built(threads: int = THREADS) -> Iterator[None]:
    """Compile the Triton kernels that are launched in a ``with``, side by side, and run none of them.

    One after the other, the kernels of a model take a second or two each at their first launch. What is
    computed meanwhile is garbage, in this thread only. Kernels of `torch.compile` are left alone.
    """
    import triton
    from triton.runtime.jit import JITFunction

    real: Any = JITFunction.run

    def run(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        return real(kernel, *arguments, grid=grid, warmup=warmup or _only_built.get(), **options)

    JITFunction.run = run  # type: ignore[method-assign]
    token = _only_built.set(True)
    try:
        with (
            ThreadPoolExecutor(min(threads, os.cpu_count() or 1)) as pool,
            triton.AsyncCompileMode(pool),
        ):
            yield
    finally:
        _only_built.reset(token)
        JITFunction.run = real  # type: ignore[method-assign]


def gpu_times(call: Any) -> list[dict[str, Any]]:
    """Milliseconds and launches by kernel of one call, the longest first.

    Parameters
    ----------
    call : callable
        Run once more before, so that nothing is made for the first time.
    """
    from torch.profiler import ProfilerActivity, profile

    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for event in seen.events():
        if event.device_time_total:
            sums[event.name][0] += event.device_time_total / 1e3
            sums[event.name][1] += 1
    ordered = sorted(sums.items(), key=lambda item: -item[1][0])
    rows = [
        {"kernel": name[:120], "ms": f"{ms:.4f}", "launches": count} for name, (ms, count) in ordered[:MOST]
    ]
    rest = ordered[MOST:]
    if rest:
        ms, count = (sum(values[index] for _, values in rest) for index in range(2))
        rows.append({"kernel": f"{len(rest)} others", "ms": f"{ms:.4f}", "launches": count})
    return rows
