"""``brainlab data``: what the datasets are, getting them, and testing a folder before any long work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli.options import AsJson, Root, Sets, new_app
from lab.cli.output import emit_json, emit_line, emit_record, emit_rows

app = new_app("Datasets: list, describe, fetch, check.")

Name = Annotated[str, typer.Argument(help="Name of the dataset (brainlab data list).")]


@app.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """List the datasets."""
    from lab.jobs.data import list_all

    emit_rows(list_all(), as_json, ["name", "simulated", "size", "title"])


@app.command()
def info(name: Name, as_json: AsJson = False) -> None:
    """Say what a dataset is and its terms."""
    from lab.jobs.data import info as job

    emit_record(job(name), as_json)


@app.command()
def fetch(
    name: Name,
    root: Root = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Simulated: small or large.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Simulated: seed of the subjects.")
    ] = None,
    stimuli: Annotated[
        Path | None, typer.Option("--stimuli", help="Simulated: folder or parquet file of pictures to show.")
    ] = None,
    features: Annotated[
        str | None, typer.Option("--features", help="Simulated: high-level tuning, random or encoder-64.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download or make a dataset.

    What is already there is kept.
    """
    from lab.jobs.data import fetch as job
    from lab.progress import reporting

    options = {"preset": preset, "seed": seed, "stimuli": stimuli, "features": features}
    with reporting() as progress:
        result = job(name, root, progress, **options)
    emit_record(result, as_json)


@app.command()
def check(
    name: Name,
    root: Root = None,
    subject: Annotated[str | None, typer.Option("--subject", help="Subject; default: all of them.")] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Test a folder before any long work.

    Looks at shapes, geometry, NaNs, missing runs, leaks between training and test, and at what a run with
    these settings will need. Exit code 2 if the dataset cannot be used.
    """
    from lab.jobs.data import check as job

    result = job(name, root, subject, sets or ())
    if as_json:
        emit_json(result)
    else:
        emit_rows(result["findings"], False)
        emit_line(result["verdict"])
    if not result["usable"]:
        raise typer.Exit(2)
