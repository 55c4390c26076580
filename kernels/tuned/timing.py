"""Time of calls on a GPU: medians of graph replays, so that launches from Python cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch


class Replay:
    """A CUDA graph that holds some calls once; each was run once before (compilation, workspaces).

    Parameters
    ----------
    calls : sequence of callables
    """

    def __init__(self, calls: Sequence[Callable[[], object]]) -> None:
        for call in calls:
            call()
        torch.cuda.synchronize()
        self.count = len(calls)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.kept = [call() for call in calls]

    def us(self, rep_ms: float) -> float:
        """Microseconds a call: the median of replays that take about `rep_ms` together.

        Before each the cache is emptied by reading: what was filled by writing would be written back while
        the call is timed.
        """
        flush = _flush(torch.cuda.current_device())
        once = _timed(self.graph, flush, 3)
        times = _timed(self.graph, flush, max(5, min(500, round(rep_ms / max(sorted(once)[1], 1e-3)))))
        return sorted(times)[len(times) // 2] * 1e3 / self.count


def _timed(graph: torch.cuda.CUDAGraph, flush: torch.Tensor, count: int) -> list[float]:
    """Time replays, in ms."""
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
    for start, end in events:
        flush.amax()
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in events]


@lru_cache(maxsize=4)
def _flush(device: int) -> torch.Tensor:
    """Numbers that fill the last cache three times over."""
    size = torch.cuda.get_device_properties(device).L2_cache_size
    return torch.zeros(3 * size // 4, dtype=torch.float32, device=f"cuda:{device}")


def graph_us(calls: Sequence[Callable[[], object]], rep_ms: int = 30) -> float:
    """Microseconds a call; see `Replay`."""
    return Replay(calls).us(rep_ms)
