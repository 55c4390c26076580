"""Time of calls on a GPU: medians of graph replays, so that launches from Python cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def graph_us(calls: Sequence[Callable[[], object]], rep_ms: int = 30) -> float:
    """Microseconds a call, from the median of replays of one graph that holds all calls once.

    Parameters
    ----------
    calls : sequence of callables
        Each is run once before (compilation, workspaces), then captured.
    rep_ms : int
        Milliseconds of replays.
    """
    from triton.testing import do_bench

    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [call() for call in calls]
    us = do_bench(graph.replay, warmup=8, rep=rep_ms, return_mode="median") * 1e3 / len(calls)
    del kept
    return float(us)
