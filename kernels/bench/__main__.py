"""``python -m kernels.bench``: what ``brainlab bench kernels`` does, where only torch and triton are."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from kernels.bench.run import bench
from kernels.bench.tuning import tune_all
from kernels.tuned.spaces import SPACES


def main() -> int:
    """Parse arguments and run; ends with 1 where a kernel here was not timed, or was wrong."""
    parser = argparse.ArgumentParser(prog="python -m kernels.bench", description=__doc__)
    parser.add_argument("action", choices=("tune", "time", "peers", "plot"))
    parser.add_argument("--out", type=Path, required=True, help="folder for CSV, tables and logs")
    parser.add_argument("--budget", type=float, default=600, help="seconds at most")
    parser.add_argument("--workers", type=int, default=8, help="processes that compile")
    parser.add_argument("--few", action="store_true", help="the largest shapes only")
    parser.add_argument(
        "--kinds", nargs="*", default=[], choices=sorted(SPACES), help="kernels to tune; all if none is named"
    )
    parser.add_argument("--missing", action="store_true", help="tune only what no table has")
    options = parser.parse_args()
    if not 0 < options.budget < float("inf") or options.workers < 1:
        parser.error(f"budget and workers must be above 0, got {options.budget:g} and {options.workers}")
    if options.action == "plot":
        return plot(options.out)
    if not torch.cuda.is_available():
        sys.stderr.write(
            "kernels.bench: timing needs a CUDA device, and there is none; tests run on the CPU\n"
        )
        return 3
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(done: int, total: int, text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - started:6.1f} s  {done}/{total}  {text}\n")
        sys.stdout.flush()

    if options.action == "tune":
        tune_all(
            options.out,
            say,
            options.budget,
            options.workers,
            options.few,
            tuple(options.kinds),
            options.missing,
        )
    else:
        others = options.action == "peers"
        file = options.out / ("peers.csv" if others else "kernels.csv")
        rows = bench(file, say, options.budget, few=options.few, others=others)
        return int(not rows or any(row["peer"] == 0 and "us" not in row for row in rows))
    return 0


def plot(folder: Path) -> int:
    """Draw what was timed before."""
    from kernels.bench.plots import draw

    try:
        draw(folder / "kernels.csv", folder)
    except ValueError as error:
        sys.stderr.write(f"kernels.bench: {error}\n")
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
