"""``python -m kernels.bench tune|time``: what ``brainlab bench kernels`` does, where only torch and triton are."""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path

import torch

from kernels.bench.run import bench, environment
from kernels.bench.shapes import tuning_jobs
from kernels.tuned.search import compile_all, tune
from kernels.tuned.table import cache_file, device_name, key_of, read, write


def main() -> int:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m kernels.bench", description=__doc__)
    parser.add_argument("action", choices=("tune", "time", "peers"))
    parser.add_argument("--out", type=Path, required=True, help="folder for CSV, tables and logs")
    parser.add_argument("--budget", type=float, default=600, help="seconds at most")
    parser.add_argument("--workers", type=int, default=8, help="processes that compile")
    parser.add_argument("--few", action="store_true", help="the largest shapes only")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            "kernels.bench: timing needs a CUDA device, and there is none; tests run on the CPU",
            file=sys.stderr,
        )
        return 3
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", flush=True)

    if options.action == "time":
        bench(options.out / "kernels.csv", say, options.budget, few=options.few)
        return 0
    if options.action == "peers":
        bench(options.out / "peers.csv", say, options.budget, others=True)
        return 0
    run_tuning(options, say, started + options.budget)
    return 0


def run_tuning(options: argparse.Namespace, say, until: float) -> None:
    """Compile, time and keep the best of each job; tables and CSV grow with every job."""
    device = torch.device("cuda", torch.cuda.current_device())
    jobs = tuning_jobs(options.few)
    compile_all(jobs, options.workers, say, until - 30)
    file = cache_file(device_name(device))
    table = read(file)
    log = options.out / "tuning.csv"
    with log.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["kind", "shape", "us", "config", "error"])
        for kind, shape in jobs:
            if time.monotonic() > until:
                say(f"out of time before {kind} {shape}")
                break
            rows = tune(kind, shape, device, say, until)
            for row in rows:
                writer.writerow(
                    [kind, "x".join(map(str, shape)), f"{row['us']:.2f}", row["config"].label, row["error"]]
                )
            stream.flush()
            if rows and rows[0]["us"] < float("inf"):
                table.setdefault(kind, {})[key_of(shape)] = rows[0]["config"]
                write(file, table, environment())
                write(options.out / f"{device_name(device)}.json", table, environment())
            torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
