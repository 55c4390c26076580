"""Tune kernels: compile every config in parallel, time each in a graph, keep the fastest that is right.

Nothing is tuned at first touch: this runs when it is asked for (``brainlab bench kernels --tune``,
``python -m kernels.bench tune``), says what it does, and writes a table for this device.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch

from kernels.tuned.configs import Config
from kernels.tuned.problems import Shape, problem
from kernels.tuned.spaces import SPACES
from kernels.tuned.timing import graph_us

Progress = Callable[[str], None]
Job = tuple[str, Shape]


def compile_all(jobs: Iterable[Job], workers: int, progress: Progress, until: float) -> None:
    """Fill Triton's disk cache from several processes; a config that does not compile is left to `tune`."""
    tasks = [(kind, shape, config) for kind, shape in distinct(jobs) for config in SPACES[kind]]
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
            calls[kind, shape] = problem(kind, shape, device)[0]
        try:
            calls[kind, shape](config)
            torch.cuda.synchronize()
        except Exception:  # noqa: BLE001, S112 - `tune` meets the same error and reports it
            continue


def distinct(jobs: Iterable[Job]) -> list[Job]:
    """Jobs whose code differs: products of all shapes share theirs, row kernels are compiled for each K."""
    first: dict[tuple, Job] = {}
    for kind, shape in jobs:
        first.setdefault((kind, shape[1:] if kind.startswith("quantize") else None), (kind, shape))
    return list(first.values())


def tune(
    kind: str, shape: Shape, device: torch.device, progress: Progress, until: float = float("inf"), rep_ms: int = 12
) -> list[dict[str, Any]]:
    """Time every config of a kernel at a shape.

    Returns
    -------
    list of dict
        kind, shape, config, us, error (text; empty if it ran); fastest first.
    """
    calls = problem(kind, shape, device)
    rows: list[dict[str, Any]] = []
    for config in SPACES[kind]:
        if time.monotonic() > until:
            progress(f"{kind} {shape}: out of time after {len(rows)} of {len(SPACES[kind])} configs")
            break
        row = {"kind": kind, "shape": shape, "config": config, "us": float("inf"), "error": ""}
        try:
            row["us"] = graph_us([lambda call=call: call(config) for call in calls], rep_ms)
        except Exception as error:  # noqa: BLE001 - out of registers, shared memory ...: recorded
            row["error"] = f"{type(error).__name__}: {str(error)[:120]}"
        rows.append(row)
    rows.sort(key=lambda row: row["us"])
    if rows and rows[0]["us"] < float("inf"):
        progress(f"{kind} {shape}: {rows[0]['us']:.1f} us with {rows[0]['config'].label}")
    else:
        progress(f"{kind} {shape}: nothing ran ({rows[0]['error'] if rows else 'no time'})")
    return rows
