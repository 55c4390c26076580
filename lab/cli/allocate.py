"""``brainlab allocate``: mixed precision under a byte budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli.options import AsJson
from lab.cli.output import emit_json, emit_line, emit_rows
from lab.cli.quantize import Model, Only


def allocate(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="Folder for the table and the presets.")],
    recipe: Annotated[str, typer.Option("--recipe", help="Preset of mixdq.")] = "mixdq-w4a8-common",
    bits: Annotated[str, typer.Option("--bits", help="Budgets: the bytes of uniform bits.")] = "3,4,6",
    choices: Annotated[str, typer.Option("--choices", help="Weight bits to choose from.")] = "2,3,4,5,6,8",
    metric: Annotated[str, typer.Option("--metric", help="What is summed: nmse, or sqnr_db.")] = "nmse",
    samples: Annotated[int, typer.Option("--samples", min=1, help="Recorded samples to measure on.")] = 4,
    timesteps: Annotated[int, typer.Option("--timesteps", min=1, help="Timesteps of them.")] = 4,
    recording: Annotated[
        Path | None,
        typer.Option("--recording", help="Folder of recorded sampling; shipped denoisers make their own."),
    ] = None,
    part: Only = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Fixes everything random.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Give weight bits to layers by an integer program (MixDQ).

    Keeps the bytes of uniform bits. Writes one preset a budget; compare them with:
    brainlab compare MODEL --recipes FILE.yaml,...
    """
    from lab.cli.sensitivity import numbers
    from lab.jobs.allocate import allocate as job
    from lab.progress import reporting

    with reporting() as progress:
        result = job(
            model, out, recipe=recipe, budgets=numbers(bits), choices=numbers(choices), metric=metric,
            samples=samples, timesteps=timesteps, recording=recording, part=part, device=device, seed=seed,
            progress=progress,
        )  # fmt: skip
    if as_json:
        emit_json(result)
        return
    emit_rows(result["rows"], False)
    emit_line("")
    emit_line(f"presets: {result['out']}")
