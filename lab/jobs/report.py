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


def grid(run: Path, out: Path, n_each: int = 3) -> Path:
    """Write one picture of a run: stimulus over reconstructions; best, median, worst and random ones by rule.

    Parameters
    ----------
    run : Path
        Finished run folder.
    out : Path
        PNG file.
    n_each : int
        Pictures of each group.
    """
    from lab.figures import choose, picture_grid
    from lab.files import replacing
    from lab.report.rundata import read_run

    data = read_run(run)
    if "quantized" not in data.arrays:
        raise InputError(f"{run} holds no reconstructed pictures (arrays.npz); finish the run first")
    score = data.arrays["score_pixcorr"]
    plate = picture_grid(data.arrays, choose(score, n_each, data.seed), score, data.provenance())
    with replacing(out) as temporary:
        temporary.write_bytes(plate.png())
    return out
