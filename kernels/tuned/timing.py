"""Time of calls on a GPU: medians of graph replays, so that launches from Python cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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

    def us(self, rep_ms: int) -> float:
        """Microseconds a call: the median of replays that take `rep_ms` together."""
        from triton.testing import do_bench

        us = do_bench(self.graph.replay, warmup=8, rep=rep_ms, return_mode="median")
        return float(us * 1e3 / self.count)


def graph_us(calls: Sequence[Callable[[], object]], rep_ms: int = 30) -> float:
    """Microseconds a call; see `Replay`."""
    return Replay(calls).us(rep_ms)
