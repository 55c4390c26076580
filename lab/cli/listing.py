"""``brainlab list``: methods, presets, models, datasets, kernels, settings."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli.options import AsJson
from lab.cli.output import emit_rows


def list_things(
    what: Annotated[
        str, typer.Argument(metavar="THING", help="methods, presets, models, datasets, kernels or settings.")
    ],
    pattern: Annotated[str, typer.Argument(help="Only names that match, such as '*w4*'.")] = "*",
    as_json: AsJson = False,
) -> None:
    """List methods, presets, models, kernels."""
    from lab.jobs.listing import listing

    emit_rows(listing(what, pattern), as_json)
