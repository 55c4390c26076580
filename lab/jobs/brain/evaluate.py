"""Job behind ``brainlab brain evaluate``: a run's scores, or two runs compared."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lab.jobs import contract
from lab.jobs.brain.scores import check_run, difference_table, other_tests, score_table, warned, warnings_of
from lab.jobs.contract import Context, Table, line, setting

_GAP = ("difference", "low", "high")


class Settings(contract.Settings):
    """Print a run's scores or compare two runs.

    The comparison looks at everything but the time (seconds_total) and ends with exit code 1 if they differ.
    All flat values come with --json.
    """

    folder: Path = setting(..., "run folder", argument=True)
    compare: Path | None = setting(None, "second run; exit code 1 if metrics differ")


class Result(contract.Result):
    """Metrics of one run or two, the names in which two differ, and second minus first with its interval."""

    folder: str
    metrics: dict[str, Any]
    other: dict[str, Any] | None = None
    differences: tuple[str, ...] = ()
    caution: str = ""
    paired: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()

    def plain(self) -> Any:
        """Return the flat metrics; of two runs whether they are equal, where they differ, and how surely."""
        if self.other is None:
            return self.metrics
        found = {"equal": not self.differences, "differences": list(self.differences)}
        return found | {"paired": list(self.paired)} if self.paired else found

    def tables(self) -> list[Table]:
        """Return the report's score table; of two runs the same with differences."""
        if self.other is None:
            return [*score_table(self.metrics), *warned(self.warnings)]
        if not self.differences:
            return [line("equal")]
        from brainit.metrics import Interval

        of = len(set(self.metrics) | set(self.other))
        sure = {(gap["of"], gap["score"]): Interval(*(gap[k] for k in _GAP)) for gap in self.paired}
        table = difference_table(self.metrics, self.other, sure)
        if sure:
            said = "95 % intervals of differences: bootstrap over the pictures (trials) that both decoded"
        else:
            said = "no intervals of differences: a run keeps no scores by picture (it is of before these)"
        count = line(f"{len(self.differences)} of {of} values differ (all with --json)")
        caution = [line(self.caution)] if self.caution else [line(said)] if table else []
        return [*table, count, *caution]

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
    check(settings)
    metrics = read_metrics(settings.folder)
    if settings.compare is None:
        odd = warnings_of(settings.folder)
        return Result(folder=str(settings.folder), metrics=metrics, warnings=odd)
    from lab.runs.by_picture import differences

    pair = settings.folder, settings.compare
    other, changed = read_metrics(settings.compare), tuple(equal_metrics(*pair))
    caution = other_tests(*pair) if changed else ""
    gaps = differences(*pair) if changed and not caution else {}
    rows = [{"of": of, "score": key} | dict(zip(_GAP, gap, strict=True)) for (of, key), gap in gaps.items()]
    return Result(
        folder=str(settings.folder), metrics=metrics, other=other, differences=changed, caution=caution,
        paired=tuple(rows),
    )  # fmt: skip


def check(settings: Settings) -> None:
    """Refuse a folder that is no measured run."""
    for path in (settings.folder, settings.compare):
        if path is not None:
            check_run(path)
