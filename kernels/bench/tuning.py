"""Tune every kernel at the shapes that are timed, keep the best of each on disk."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path

import torch

from kernels.bench.run import environment
from kernels.bench.shapes import tuning_jobs
from kernels.tuned.search import compile_all, tune
from kernels.tuned.table import cache_file, device_name, key_of, read, tables, write

Progress = Callable[[int, int, str], None]
MEASURING_S = 30
"""Seconds kept for timing when compiling takes all it may."""


def tune_all(
    out: Path,
    progress: Progress,
    budget_s: float,
    workers: int,
    few: bool = False,
    kinds: tuple[str, ...] = (),
    missing: bool = False,
) -> Path:
    """Compile and time all configs; the table and the log grow with every kernel and shape.

    Parameters
    ----------
    out : Path
        Folder for ``tuning.csv`` and a copy of the table.
    progress : callable
        Called with shapes done, shapes in all, and a line.
    budget_s : float
        Seconds after which nothing new is begun.
    workers : int
        Processes that compile.
    few : bool
        The largest shapes only.
    kinds : tuple of str
        Keys of `kernels.tuned.spaces.SPACES`; empty: all.
    missing : bool
        Only what no table of this device has.

    Returns
    -------
    Path
        The table of this device, which kernels read from now on.
    """
    until = time.monotonic() + budget_s
    device = torch.device("cuda", torch.cuda.current_device())
    jobs = [job for job in tuning_jobs(few) if not kinds or job[0] in kinds]
    name = device_name(device)
    if missing:
        known = tables(name)
        jobs = [(kind, shape) for kind, shape in jobs if key_of(shape) not in known.get(kind, {})]
    compile_all(jobs, workers, lambda text: progress(0, len(jobs), text), until - MEASURING_S)
    file, table = cache_file(name), read(cache_file(name))
    with (out / "tuning.csv").open("w", newline="") as stream:
        log = csv.writer(stream)
        log.writerow(["kind", "shape", "us", "config", "error"])
        for done, (kind, shape) in enumerate(jobs):
            if time.monotonic() > until:
                progress(done, len(jobs), f"out of time before {kind} {shape}")
                break
            rows = tune(kind, shape, device, lambda text, done=done: progress(done, len(jobs), text), until)
            size = "x".join(map(str, shape))
            log.writerows([kind, size, f"{r['us']:.2f}", r["config"].label, r["error"]] for r in rows)
            stream.flush()
            if rows and rows[0]["us"] < float("inf"):
                table.setdefault(kind, {})[key_of(shape)] = rows[0]["config"]
                for place in (file, out / f"{name}.json"):
                    write(place, table, environment())
            torch.cuda.empty_cache()
    return file
