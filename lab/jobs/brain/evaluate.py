"""Job behind ``brainlab brain evaluate``: a run's scores, or two runs compared."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lab.jobs import contract
from lab.jobs.brain.scores import check_run, difference_table, other_tests, score_table
from lab.jobs.contract import Context, Table, line, setting


class Settings(contract.Settings):
    """Print a run's scores or compare two runs.

    The comparison looks at everything but the time (seconds_total) and ends with exit code 1 if they differ.
    All flat values come with --json.
    """

    folder: Path = setting(..., "run folder", argument=True)
    compare: Path | None = setting(None, "second run; exit code 1 if metrics differ")


class Result(contract.Result):
    """Metrics of one run or two, and the names in which two differ."""

    folder: str
    metrics: dict[str, Any]
    other: dict[str, Any] | None = None
    differences: tuple[str, ...] = ()
    caution: str = ""

    def plain(self) -> Any:
        """Return the flat metrics; of two runs whether they are equal and where they differ."""
        if self.other is None:
            return self.metrics
        return {"equal": not self.differences, "differences": list(self.differences)}

    def tables(self) -> list[Table]:
        """Return the report's score table; of two runs the same with differences."""
        if self.other is None:
            return score_table(self.metrics)
        if not self.differences:
            return [line("equal")]
        of = len(set(self.metrics) | set(self.other))
        count = line(f"{len(self.differences)} of {of} values differ (all with --json)")
        caution = [line(self.caution)] if self.caution else []
        return [*difference_table(self.metrics, self.other), count, *caution]

    def files(self) -> dict[str, str]:
        """Return the run folder."""
        return {"run": self.folder}

    def next_step(self) -> str:
        """Return how its page is written."""
        return shlex.join(["brainlab", "brain", "report", self.folder])

    def exit_code(self) -> int:
        """Return 1 where two runs differ."""
        return 1 if self.differences else 0


def run(settings: Settings, context: Context) -> Result:
    """Read the metrics of a run, and of a second one to compare.

    Raises
    ------
    MissingDataError
        No such folder, or one without metrics.
    """
    from lab.runs.metrics import equal_metrics, read_metrics

    context.check()
    for path in (settings.folder, settings.compare):
        if path is not None:
            check_run(path)
    metrics = read_metrics(settings.folder)
    if settings.compare is None:
        return Result(folder=str(settings.folder), metrics=metrics)
    other, changed = read_metrics(settings.compare), tuple(equal_metrics(settings.folder, settings.compare))
    return Result(
        folder=str(settings.folder), metrics=metrics, other=other, differences=changed,
        caution=other_tests(settings.folder, settings.compare) if changed else "",
    )  # fmt: skip
