"""``brainlab zoo``: the small models that ship with the project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli.options import AsJson, Device, DryRun, new_app
from lab.cli.output import emit_record, emit_rows

app = new_app("Shipped models: list, describe, train, sample.")

Name = Annotated[str, typer.Argument(help="Name of the model (brainlab zoo list).")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Fixes data order, initial weights and noise.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the shipped models."""
    from lab.jobs.listing import listing

    emit_rows(listing("models"), as_json)


@app.command()
def info(name: Name, as_json: AsJson = False) -> None:
    """Show a model's card: data, steps, seed, device, measured quality."""
    from lab.jobs.zoo import info as job

    emit_record(job(name), as_json)


@app.command()
def train(
    name: Name,
    data: Annotated[Path, typer.Option("--data", help="Folder with the training pictures.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the training state; a stopped run goes on.")
    ] = Path("runs/zoo"),
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Optimiser steps instead of the recipe's.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Pictures a step instead of the recipe's.")
    ] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", min=0.01, help="Time budget.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the first pictures, for a trial.")
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train a shipped model again.

    The same command goes on after a stop.
    """
    from lab.jobs.zoo import train as job
    from lab.progress import reporting

    options = {"steps": steps, "batch": batch, "minutes": minutes, "limit": limit, "seed": seed}
    with reporting() as progress:
        card = job(name, data, out, device=device or "auto", dry_run=dry_run, progress=progress, **options)
    emit_record(card, as_json)


@app.command()
def sample(
    name: Name,
    out: Annotated[Path, typer.Option("--out", help="PNG file of the picture grid.")] = Path("samples.png"),
    n: Annotated[int, typer.Option("--n", min=1, max=256, help="Number of pictures.")] = 16,
    steps: Annotated[int, typer.Option("--steps", min=1, max=1000, help="Sampling steps.")] = 20,
    seed: Seed = 0,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Draw pictures with a shipped denoiser, unconditioned."""
    from lab.jobs.zoo import sample as job
    from lab.progress import reporting

    with reporting() as progress:
        result = job(name, out, n=n, steps=steps, seed=seed, device=device or "auto", progress=progress)
    emit_record(result, as_json)
