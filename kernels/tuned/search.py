"""Tune kernels: compile every config in parallel, time each in a graph, keep the fastest that is right.

Nothing is tuned at first touch: this runs when it is asked for (``brainlab bench kernels --tune``,
``python -m kernels.bench tune``), says what it does, and writes a table for this device.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from typing import Any

import torch

from kernels.tuned.configs import Config
from kernels.tuned.problems import Shape, problem
from kernels.tuned.spaces import candidates
from kernels.tuned.timing import graph_us

Progress = Callable[[str], None]
Job = tuple[str, Shape]
DISTANCE = 0.02
"""Relative distance from the reference above which a config is wrong; sums stay below .006."""


def compile_all(jobs: Iterable[Job], workers: int, progress: Progress, until: float) -> None:
    """Fill Triton's disk cache from several processes; a config that does not compile is left to `tune`."""
    tasks = [(kind, shape, config) for kind, shape in distinct(jobs) for config in candidates(kind, shape)]
    if workers < 2:
        return
    started = time.monotonic()
    chunks = [tasks[start::workers] for start in range(workers)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        done = [pool.submit(_compile, chunk, until - time.monotonic()) for chunk in chunks if chunk]
        for count, future in enumerate(as_completed(done), 1):
            future.result()
            progress(f"compiled {count} of {len(done)} shares, {time.monotonic() - started:.0f} s")


def _compile(tasks: list[tuple[str, Shape, Config]], budget: float) -> None:
    until = time.monotonic() + budget
    device = torch.device("cuda")
    calls: dict[Job, Any] = {}
    for kind, shape, config in tasks:
        if time.monotonic() > until:
            return
        if (kind, shape) not in calls:
            calls.clear()
            calls[kind, shape] = problem(kind, shape, device).calls[0]
        try:
            calls[kind, shape](config)
            torch.cuda.synchronize()
        except Exception:  # one that cannot be built here: the search names its error when it comes to it
            continue


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """Jobs whose code differs: products of all shapes share theirs, row kernels are compiled for each K."""
    first: dict[tuple, Job] = {}
    for kind, shape in jobs:
        # what is a constant of the compiled code: K of row kernels, a single row, the kernel of a convolution
        constant = shape[1:] if kind.startswith("quantize") else shape[0] == 1
        first.setdefault((kind, constant), (kind, shape))
    return list(first.values())


def tune(
    kind: str,
    shape: Shape,
    device: torch.device,
    progress: Progress,
    until: float = float("inf"),
    rep_ms: int = 12,
) -> list[dict[str, Any]]:
    """Time every config of a kernel at a shape.

    Returns
    -------
    list of dict
        kind, shape, config, us, error (text; empty if it ran); fastest first.
    """
    calls, reference, read = problem(kind, shape, device)
    exact = reference().float()
    rows: list[dict[str, Any]] = []
    for config in candidates(kind, shape):
        if time.monotonic() > until:
            progress(
                f"{kind} {shape}: out of time after {len(rows)} of {len(candidates(kind, shape))} configs"
            )
            break
        row = {"kind": kind, "shape": shape, "config": config, "us": float("inf"), "error": ""}
        try:
            apart = (read(calls[0](config)).float() - exact).norm() / exact.norm()
            if not apart < DISTANCE:  # NaN is not, either
                raise ArithmeticError(f"relative distance {apart:.1e} from the reference")
            row["us"] = graph_us([partial(call, config) for call in calls], rep_ms)
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {str(error)[:120]}"
        rows.append(row)
    rows.sort(key=lambda row: row["us"])
    if rows and rows[0]["us"] < float("inf"):
        progress(f"{kind} {shape}: {rows[0]['us']:.1f} us with {rows[0]['config'].label}")
    else:
        progress(f"{kind} {shape}: nothing ran ({rows[0]['error'] if rows else 'no time'})")
    return rows
