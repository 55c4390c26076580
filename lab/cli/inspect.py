"""``brainlab inspect``: what a model's numbers look like before they are rounded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli.options import AsJson
from lab.cli.output import emit_json, emit_line, emit_rows
from lab.cli.quantize import Model, Only


def inspect(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="Folder for tables, figures and index.html.")],
    recording: Annotated[
        Path | None,
        typer.Option("--recording", help="Folder of recorded sampling; shipped denoisers make their own."),
    ] = None,
    layers: Annotated[str, typer.Option("--layers", help="Wildcard over layer names, as '*attn2*'.")] = "*",
    sort: Annotated[
        str, typer.Option("--sort", help="Statistic to sort by; an unknown one lists all.")
    ] = "absmax",
    samples: Annotated[int, typer.Option("--samples", help="Recorded samples to look at.")] = 8,
    steps: Annotated[int, typer.Option("--steps", help="Timesteps to look at, evenly spread.")] = 20,
    part: Only = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Look at a denoiser's inputs, weights and attention.

    Per layer, channel and timestep: extremes, quantiles, moments, outliers, histograms. Writes parquet and
    npz, figures, and one page; prints the first layers by a statistic.
    """
    from lab.jobs.inspect import inspect as job
    from lab.progress import reporting

    with reporting() as progress:
        result = job(
            model, out, recording=recording, layers=layers, sort=sort, samples=samples, steps=steps,
            part=part, device=device, progress=progress,
        )  # fmt: skip
    if as_json:
        emit_json(result)
        return
    columns = ["layer", "kind", "channels", sort]
    more = ("absmax", "rms", "kurtosis", "outlier_share", "salient_channels", "axis", "drift")
    top = [{**row, "same input": f"+{row['also']}" if row["also"] else ""} for row in result["top"]]
    emit_rows(top, False, [*columns, *(c for c in more if c != sort), "same input"])
    emit_line("")
    emit_line(f"{len(top)} tensors of {len(result['layers'])} layers; page: {result['page']}")
