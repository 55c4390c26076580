"""``brainlab demo``: the whole way on the shipped simulated subjects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli.options import AsJson
from lab.cli.output import emit_json, emit_line, emit_rows


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the runs.")] = Path("runs/demo"),
    as_json: AsJson = False,
) -> None:
    """Decode the shipped simulated subjects."""
    from lab.jobs.demo import demo as job
    from lab.progress import reporting

    with reporting() as progress:
        result = job(out, progress)
    if as_json:
        emit_json(result)
        return
    emit_rows(result["table"], False)
    emit_line(f"report: {result['report']}")
