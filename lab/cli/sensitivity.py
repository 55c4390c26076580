"""``brainlab sensitivity``: which layers a recipe hurts most."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli.options import AsJson
from lab.cli.output import emit_json, emit_line, emit_rows
from lab.cli.quantize import Model, Only, Recipe


def sensitivity(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="JSON file; continued if it was begun.")],
    recipe: Recipe = "rtn-w8a8",
    mode: Annotated[
        str, typer.Option("--mode", help="one-on: one layer quantized; one-off: all but one.")
    ] = "one-on",
    metric: Annotated[
        str,
        typer.Option(
            "--metric", help="Of the prediction: sqnr_db, nmse; of samples: ssim, final_sqnr_db, final_nmse."
        ),
    ] = "sqnr_db",
    bits: Annotated[str, typer.Option("--bits", help="Weight bits to try in turn, as 2,4,8.")] = "",
    side: Annotated[str, typer.Option("--side", help="both, weight or activation.")] = "both",
    layers: Annotated[str, typer.Option("--layers", help="Wildcard over layer names, as '*attn2*'.")] = "*",
    samples: Annotated[int, typer.Option("--samples", help="Recorded samples to compare on.")] = 4,
    timesteps: Annotated[int, typer.Option("--timesteps", help="Timesteps of them, evenly spread.")] = 4,
    growth: Annotated[
        bool, typer.Option("--growth/--no-growth", help="Follow the error along the sampler's steps.")
    ] = True,
    recording: Annotated[
        Path | None,
        typer.Option("--recording", help="Folder of recorded sampling; shipped denoisers make their own."),
    ] = None,
    part: Only = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Fixes everything random in the method.")] = 0,
    top: Annotated[int, typer.Option("--top", min=1, help="Rows to print.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Quantize one layer, or all but one, and measure.

    Writes the sorted table as JSON, figures beside it, and the error of the whole quantized model along the
    sampler's steps.
    """
    from lab.jobs.sensitivity import sensitivity as job
    from lab.progress import reporting

    with reporting() as progress:
        result = job(
            model, recipe, out, mode=mode, metric=metric, bits=numbers(bits), side=side, layers=layers,
            samples=samples, timesteps=timesteps, growth=growth, recording=recording, part=part,
            device=device, seed=seed, progress=progress,
        )  # fmt: skip
    if as_json:
        emit_json(result)
        return
    emit_rows([*result["all"], *result["rows"][:top]], False, ["layer", "kind", "setting", "side", metric])
    left = len(result["rows"]) - top
    emit_line("")
    emit_line((f"and {left} more rows; " if left > 0 else "") + f"table: {result['out']}")


def numbers(text: str) -> list[int]:
    """Read whole numbers with commas between."""
    from lab.errors import InputError

    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise InputError(f"--bits {text!r}: give whole numbers with commas between, as 2,4,8") from None
