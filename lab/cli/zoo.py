"""``brainlab zoo``: the small models that ship with the project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lab.cli.options import AsJson, Device, DryRun, new_app
from lab.cli.output import emit_record, emit_rows

app = new_app("Shipped models: list, describe, train, measure, sample.")

Name = Annotated[str, typer.Argument(help="Name of the model (brainlab zoo list).")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Fixes data order, initial weights and noise.")]
Data = Annotated[Path, typer.Option("--data", help="Folder with the training and held-out pictures.")]
State = Annotated[Path, typer.Option("--out", help="Folder of the training state; a stopped run goes on.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Optimiser steps instead of the recipe's.")]
Batch = Annotated[int | None, typer.Option("--batch", min=1, help="Pictures a step instead of the recipe's.")]
Minutes = Annotated[float | None, typer.Option("--minutes", min=0.01, help="Time budget.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only the first pictures, for a trial.")]

On = Annotated[
    str, typer.Option("--on", help="Tokens: true, or predicted from simulated fMRI (denoisers only).")
]
Voxels = Annotated[int | None, typer.Option("--voxels", min=20, help="Voxels of a simulated person.")]
Scanned = Annotated[int | None, typer.Option("--scanned", min=16, help="Pictures scanned, of a person.")]
External = Annotated[int | None, typer.Option("--external", min=0, help="Pictures that were not scanned.")]
Simple = Annotated[int | None, typer.Option("--simple", min=0, help="Digits and patterns, each.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the shipped models."""
    from lab.jobs.listing import listing

    emit_rows(listing("models"), as_json)


@app.command()
def info(name: Name, as_json: AsJson = False) -> None:
    """Show a model's card: data, training, quality."""
    from lab.jobs.zoo import info as job

    emit_record(job(name), as_json)


@app.command()
def train(
    name: Name,
    data: Data,
    out: State = Path("runs/zoo"),
    steps: Steps = None,
    batch: Batch = None,
    minutes: Minutes = None,
    limit: Limit = None,
    seed: Seed = 0,
    further: Annotated[bool, typer.Option("--further", help="Start from the weights there.")] = False,
    on: On = "true",
    voxels: Voxels = None,
    scanned: Scanned = None,
    external: External = None,
    simple: Simple = None,
    device: Device = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train a shipped model again.

    The same command goes on after a stop. --on predicted trains a denoiser further on what ridge regression
    reads out of simulated people, so that it paints pictures from predicted tokens, too.
    """
    options: dict[str, Any] = {"steps": steps, "batch": batch, "minutes": minutes, "limit": limit}
    options |= {"seed": seed, "further": further, "on": on}
    options |= {"voxels": voxels, "scanned": scanned, "external": external, "simple": simple}
    _train(name, data, out, False, device, dry_run, as_json, options)


@app.command()
def refine(
    name: Name,
    data: Data,
    out: State = Path("runs/zoo"),
    steps: Steps = None,
    batch: Batch = None,
    minutes: Minutes = None,
    limit: Limit = None,
    seed: Seed = 0,
    device: Device = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train the autoencoder's decoder further.

    The encoder is frozen, so denoisers that were trained on its latents stay valid.
    """
    options = {"steps": steps, "batch": batch, "minutes": minutes, "limit": limit, "seed": seed}
    _train(name, data, out, True, device, dry_run, as_json, options)


def _train(
    name: str,
    data: Path,
    out: Path,
    decoder_only: bool,
    device: str | None,
    dry_run: bool,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    from lab.jobs.zoo import train as job
    from lab.progress import reporting

    with reporting() as progress:
        card = job(
            name,
            data,
            out,
            device=device or "auto",
            dry_run=dry_run,
            decoder_only=decoder_only,
            progress=progress,
            **options,
        )
    emit_record(card, as_json)


@app.command()
def evaluate(
    name: Name,
    data: Data,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the sheet that shows the held-out pictures too.")
    ] = Path("runs/zoo"),
    n: Annotated[
        int | None,
        typer.Option("--n", min=2, help="Natural pictures to measure on; default 1000, 300 if predicted."),
    ] = None,
    n_simple: Annotated[
        int | None, typer.Option("--n-simple", min=2, help="Digits and patterns, each; default as --n.")
    ] = None,
    on: On = "true",
    before: Annotated[
        Path | None, typer.Option("--before", help="Weights to compare with, as training kept them.")
    ] = None,
    voxels: Voxels = None,
    scanned: Scanned = None,
    external: External = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Measure a shipped model on held-out pictures.

    The numbers go into the model's card, with a sheet of pictures beside it that shows only what was
    made here. --on predicted measures a denoiser on simulated people that nothing was trained on.
    """
    from lab.jobs.zoo import evaluate as job
    from lab.progress import reporting

    with reporting() as progress:
        card = job(
            name,
            data,
            out,
            n=n,
            n_simple=n_simple,
            on=on,
            before=before,
            voxels=voxels,
            scanned=scanned,
            external=external,
            seed=seed,
            device=device or "auto",
            progress=progress,
        )
    emit_record(card, as_json)


@app.command()
def stimuli(
    data: Data,
    out: Annotated[
        Path, typer.Option("--out", help="Folder of finished pieces; a stopped run goes on.")
    ] = Path("runs/zoo/stimuli-64"),
    n: Annotated[int, typer.Option("--n", min=1, help="Number of pictures.")] = 800,
    steps: Annotated[int, typer.Option("--steps", min=1, max=1000, help="Sampling steps.")] = 12,
    guidance: Annotated[
        float, typer.Option("--guidance", min=0, help="Classifier-free guidance; 1 is none.")
    ] = 2.0,
    seed: Seed = 0,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Draw the pictures that ship for simulated subjects.

    Samples of unet-64 under the tokens of held-out natural pictures. The same command goes on after a stop.
    """
    from lab.jobs.zoo import stimuli as job
    from lab.progress import reporting

    with reporting() as progress:
        result = job(
            data,
            out,
            n=n,
            steps=steps,
            guidance=guidance,
            seed=seed,
            device=device or "auto",
            progress=progress,
        )
    emit_record(result, as_json)


@app.command()
def sample(
    name: Name,
    out: Annotated[Path, typer.Option("--out", help="PNG or WebP file of the picture sheet.")] = Path(
        "samples.png"
    ),
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
