"""Job behind ``brainlab brain report``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.errors import InputError


def report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of one run into its folder, or one page over several runs.

    Parameters
    ----------
    runs : sequence of Path
        Run folders.
    out : Path, optional
        File of the page over several runs.

    Returns
    -------
    Path
        The HTML file.
    """
    from lab.report import build_group_report, build_report

    if len(runs) == 1:
        if out is not None:
            raise InputError(
                f"--out {out}: the report of one run goes into its folder, {runs[0]}/report.html"
            )
        return build_report(runs[0])
    return build_group_report(runs, out)
