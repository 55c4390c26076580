"""Job behind ``brainlab brain report``: the page of a run, or one over several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.brain.scores import check_run
from lab.jobs.contract import Context, Table, setting


class Settings(contract.Settings):
    """Write report.html again, or one over several."""

    runs: tuple[Path, ...] = setting(
        ..., "run folders; several give one page that sets them side by side", argument=True, min_length=1
    )
    out: Path | None = setting(None, "HTML file of the page over several runs", short="-o")


class Result(contract.Result):
    """The HTML file."""

    report: str

    def tables(self) -> list[Table]:
        """Return nothing: the file says it all."""
        return []

    def files(self) -> dict[str, Any]:
        """Return the page."""
        return {"report": self.report}

    def next_step(self) -> str:
        """Return what to do with the page."""
        return "open it in a browser; it needs no network"


def run(settings: Settings, context: Context) -> Result:
    """Write the report of one run into its folder, or one page over several runs.

    Raises
    ------
    MissingDataError
        A folder is not there, or has no metrics.
    InputError
        A file's name for the page of one run, which goes into its folder; a run given twice.
    """
    from lab.report import build_group_report, build_report

    check(settings)
    runs, out = settings.runs, settings.out
    context.progress(0, 1, "report")
    page = build_group_report(runs, out) if len(runs) > 1 else build_report(runs[0])
    context.progress(1, 1, "report")
    return Result(report=str(page))


def check(settings: Settings) -> None:
    """Refuse what is no run, and a place that the page cannot go to."""
    runs, out = settings.runs, settings.out
    if len(runs) > 1 and out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {out}: the page over several runs is a file that ends in .html")
    for path in runs:
        check_run(path)
    twice = next(
        (path for k, path in enumerate(runs) if path.resolve() in [p.resolve() for p in runs[:k]]), None
    )
    if twice is not None:
        raise InputError(f"{twice} is given twice; leave one away")
    if len(runs) > 1 and out is not None and out.is_dir():
        raise InputError(f"--out {out} is a folder; give the name of an HTML file")
    if len(runs) == 1 and out is not None:
        raise InputError(f"--out {out}: the report of one run goes into its folder, {runs[0]}/report.html")
