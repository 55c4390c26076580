"""Job behind ``brainlab bench kernels``: tune the kernels for this GPU, time them beside 16 bit and peers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lab.errors import HardwareError
from lab.jobs import contract
from lab.jobs.contract import Context, Foreseen, Table, setting


class Settings(contract.Settings):
    """Time the low-bit kernels on this GPU.

    Each beside the 16-bit product of the same shape in the same run, with its error against float64 and its
    floors of bytes and operations. Tiles are tuned only if asked for, and kept on disk for this kind of GPU.
    """

    out: Path = setting(..., "folder for kernels.csv and the plots made from it", short="-o")
    tune: bool = setting(False, "tune the kernels first; the table is kept and read from then on")
    few: bool = setting(False, "the three largest shapes only")
    peers: bool = setting(
        False, "other people's kernels too, where they are installed: a minute of compiling"
    )
    minutes: float = setting(10.0, "no further shape is begun after this", unit="minutes", gt=0, le=600)
    workers: int = setting(8, "processes that compile while tuning", ge=1, le=128)


class Result(contract.Result):
    """Timings, one row a kernel and shape, and the files."""

    rows: list[dict[str, Any]]
    csv: str
    table: str | None
    plots: list[str]
    peers: str | None = None

    def tables(self) -> list[Table]:
        """Return what was timed."""
        return [Table(self.rows, ("shape", "what", "us", "ratio", "error", "floor_us", "note"))]

    def exit_code(self) -> int:
        """Return 1 where a kernel of ours was not timed, or gave a wrong result."""
        return int(any(row["peer"] == "0" and not row["us"] for row in self.rows))

    def files(self) -> dict[str, str]:
        """Return the CSV files, the table of tiles and the plots."""
        more = {Path(plot).stem: plot for plot in self.plots}
        if self.peers:
            more["peers"] = self.peers
        return {"timings": self.csv, **({"tiles": self.table} if self.table else {}), **more}


def run(settings: Settings, context: Context) -> Result:
    """Tune if asked for, time, plot; peers last.

    Raises
    ------
    HardwareError
        There is no CUDA device.
    """
    _check()
    import quant.layers.lowbit  # noqa: F401 - makes our kernels found beside the other package of that name
    from kernels.bench.plots import draw
    from kernels.bench.run import bench
    from kernels.bench.tuning import tune_all

    def report(done: int, total: int, what: str) -> None:
        context.check()
        context.progress(done, total, what)

    settings.out.mkdir(parents=True, exist_ok=True)
    seconds = settings.minutes * 60
    table = tune_all(settings.out, report, seconds, settings.workers, settings.few) if settings.tune else None
    file = settings.out / "kernels.csv"
    bench(file, report, seconds, few=settings.few)
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    plots = [str(plot) for plot in draw(file, settings.out)]
    others = settings.out / "peers.csv" if settings.peers else None
    if others is not None:
        bench(others, report, seconds, few=settings.few, others=True)
    return Result(
        rows=rows, csv=str(file), table=None if table is None else str(table), plots=plots,
        peers=None if others is None else str(others),
    )  # fmt: skip


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be timed."""
    import quant.layers.lowbit  # noqa: F401 - as above
    from kernels.bench.shapes import tuning_jobs

    _check()
    facts = {"would tune": len(tuning_jobs(settings.few)) if settings.tune else 0, "out": str(settings.out)}
    return Foreseen(facts=facts)


def _check() -> None:
    import torch

    if not torch.cuda.is_available():
        raise HardwareError("bench kernels: timing needs a CUDA device, and there is none here")
