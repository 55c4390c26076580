"""``brainlab doctor``: what this machine can do."""

from __future__ import annotations

from lab.cli.options import AsJson
from lab.cli.output import emit_json, emit_line, emit_rows


def doctor(as_json: AsJson = False) -> None:
    """Show what this machine can do."""
    from lab.jobs.doctor import examine

    report = examine()
    if as_json:
        emit_json(report)
        return
    emit_rows(report["checks"], False, ["state", "what", "found", "advice"])
    emit_line("")
    emit_rows(report["recipes"], False)
