"""``brainlab plan`` and ``brainlab quantize``: what low-bit numbers would do to a model, and doing it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli.options import AsJson, DryRun
from lab.cli.output import emit_json, emit_line, emit_rows

Model = Annotated[
    str,
    typer.Argument(
        help="Shipped model, folder of a diffusers model or pipeline, safetensors file, or a hub name."
    ),
]
Recipe = Annotated[str, typer.Option("--recipe", help="Preset (brainlab list presets).")]
Only = Annotated[str | None, typer.Option("--part", help="Part of a pipeline, such as unet or transformer.")]

Architecture = Annotated[
    Path | None,
    typer.Option("--config", help="config.json of a single file whose header does not say its architecture."),
]


def plan(
    model: Model,
    recipe: Recipe = "rtn-w8a8",
    part: Only = None,
    config: Architecture = None,
    layers: bool = True,
    as_json: AsJson = False,
) -> None:
    """Show what quantizing would do to a model.

    Every layer with its format, or the reason why it is skipped, and bytes before and after.
    """
    from lab.jobs.quantize import plan as job

    _show(job(model, recipe, part=part, config=config), as_json, layers)


def quantize(
    model: Model,
    recipe: Recipe = "rtn-w8a8",
    out: Annotated[Path, typer.Option("--out", help="Folder for the packed model and its ledger.")] = Path(
        "runs/quantized"
    ),
    part: Only = None,
    config: Architecture = None,
    recording: Annotated[
        Path | None,
        typer.Option(
            "--recording",
            help="Folder of recorded sampling to calibrate on; shipped denoisers make their own.",
        ),
    ] = None,
    dry_run: DryRun = False,
    layers: bool = False,
    as_json: AsJson = False,
) -> None:
    """Quantize a model into packed codes.

    Writes the codes, the plan and the ledger of what was done into one folder.
    """
    from lab.jobs.quantize import plan as planned
    from lab.jobs.quantize import quantize as job
    from lab.progress import reporting

    if dry_run:
        _show(planned(model, recipe, part=part, config=config), as_json, True)
        return
    with reporting() as progress:
        result = job(model, recipe, out, part=part, recording=recording, config=config, progress=progress)
    _show(result, as_json, layers)


def _show(result: dict, as_json: bool, layers: bool) -> None:
    if as_json:
        emit_json(result)
        return
    if layers:
        emit_rows(result["layers"], False)
        emit_line("")
    emit_rows(result["totals"], False)
