"""``brainlab brain``: from a recording to pictures, step by step or all at once, in one run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lab.cli.options import AsJson, ConfigFile, Device, DryRun, Root, Seed, Sets, new_app
from lab.cli.output import emit_json, emit_line, emit_record, emit_rows

app = new_app("Decode pictures from fMRI, step by step or at once.")

Dataset = Annotated[str | None, typer.Option("--dataset", help="Name of the dataset (brainlab data list).")]
Subject = Annotated[str | None, typer.Option("--subject", help="Subject; default: the first.")]
Out = Annotated[Path, typer.Option("--out", help="Run folder; the same command goes on in it after a stop.")]
RunFolder = Annotated[Path, typer.Argument(help="Run folder.")]
Recipe = Annotated[
    str | None,
    typer.Option("--recipe", help="How the decoder is quantized (brainlab list presets), or none."),
]
Preset = Annotated[
    str | None, typer.Option("--preset", help="Brain-IT settings to start from: few, small, large or nsd.")
]
Strength = Annotated[
    float | None, typer.Option("--strength", help="Noise added to the structural picture, 0 to 1.")
]
Steps = Annotated[int | None, typer.Option("--steps", help="Sampling steps.")]
Guidance = Annotated[float | None, typer.Option("--guidance", help="Classifier-free guidance; 1 is none.")]
Samples = Annotated[int | None, typer.Option("--n-samples", help="Samples averaged into one reconstruction.")]

Checkpoints = Annotated[
    Path | None,
    typer.Option("--checkpoints", help="Training of another run (RUN/checkpoints/brainit), not done again."),
]

DEFAULT_OUT = Path("runs/brain")


@app.command()
def prepare(
    out: Out = DEFAULT_OUT,
    dataset: Dataset = None,
    root: Root = None,
    subject: Subject = None,
    seed: Seed = None,
    config: ConfigFile = None,
    sets: Sets = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Read and check the data, look for leaks."""
    flags = {"dataset": dataset, "root": root, "subject": subject, "seed": seed}
    _go("prepare", out, flags, config, sets, dry_run, as_json)


@app.command()
def train(
    out: Out = DEFAULT_OUT,
    dataset: Dataset = None,
    root: Root = None,
    subject: Subject = None,
    preset: Preset = None,
    seed: Seed = None,
    device: Device = None,
    config: ConfigFile = None,
    sets: Sets = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train Brain-IT and the ridge baseline."""
    flags = {
        "dataset": dataset,
        "root": root,
        "subject": subject,
        "preset": preset,
        "seed": seed,
        "device": device,
    }
    _go("train", out, flags, config, sets, dry_run, as_json)


@app.command()
def reconstruct(
    out: Out = DEFAULT_OUT,
    dataset: Dataset = None,
    root: Root = None,
    subject: Subject = None,
    preset: Preset = None,
    recipe: Recipe = None,
    strength: Strength = None,
    steps: Steps = None,
    guidance: Guidance = None,
    n_samples: Samples = None,
    seed: Seed = None,
    device: Device = None,
    config: ConfigFile = None,
    sets: Sets = None,
    checkpoints: Checkpoints = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Do it all, from data to report.

    Data, training, pictures in full and low precision, metrics, report.
    """
    flags = {
        "dataset": dataset,
        "root": root,
        "subject": subject,
        "preset": preset,
        "recipe": recipe,
        "strength": strength,
        "steps": steps,
        "guidance": guidance,
        "n_samples": n_samples,
        "seed": seed,
        "device": device,
    }
    _go(None, out, flags, config, sets, dry_run, as_json, checkpoints)


@app.command()
def tune(
    dataset: Dataset = None,
    root: Root = None,
    subject: Subject = None,
    preset: Preset = None,
    seed: Seed = None,
    device: Device = None,
    config: ConfigFile = None,
    sets: Sets = None,
    checkpoints: Checkpoints = None,
    as_json: AsJson = False,
) -> None:
    """Score diffusion strengths on left-out training trials.

    Test trials are not looked at.
    """
    from lab.decoding.settings import ReconstructConfig
    from lab.jobs.tune import tune as job
    from lab.progress import reporting
    from lab.runs.settings import resolve

    flags = {
        "dataset": dataset,
        "root": root,
        "subject": subject,
        "preset": preset,
        "seed": seed,
        "device": device,
    }
    settings = resolve(ReconstructConfig, config, flags, sets or ())
    with reporting() as progress:
        rows = job(settings, progress=progress, checkpoints=checkpoints)
    emit_rows(rows, as_json)


@app.command()
def evaluate(
    run: RunFolder,
    compare: Annotated[
        Path | None, typer.Option("--compare", help="Second run; exit code 1 if metrics differ.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a run's metrics or compare two runs.

    The comparison looks at everything but the time (seconds_total) and ends with exit code 1 if they differ.
    """
    from lab.runs.metrics import equal_metrics, read_metrics

    if compare is None:
        emit_record(read_metrics(run), as_json)
        return
    different = equal_metrics(run, compare)
    if as_json:
        emit_json({"equal": not different, "differences": different})
    else:
        for line in different or ["equal"]:
            emit_line(line)
    if different:
        raise typer.Exit(1)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folder; several give one page that sets them side by side.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file of the page over several runs.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write report.html again, or one over several."""
    from lab.jobs.report import report as job

    path = job(runs, out)
    if as_json:
        emit_json({"report": path})
    else:
        emit_line(f"report: {path}")


@app.command()
def grid(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", help="PNG file.")] = Path("grid.png"),
    as_json: AsJson = False,
) -> None:
    """Write a run's pictures as one PNG.

    Best, median, worst and random ones, chosen by rule.
    """
    from lab.jobs.report import grid as job

    emit_record({"picture": str(job(run, out))}, as_json)


def _go(
    until: str | None,
    out: Path,
    flags: dict[str, Any],
    config: Path | None,
    sets: list[str] | None,
    dry_run: bool,
    as_json: bool,
    checkpoints: Path | None = None,
) -> None:
    from lab.decoding.settings import ReconstructConfig
    from lab.jobs.checks import check_names
    from lab.runs.settings import resolve

    settings = resolve(ReconstructConfig, config, flags, sets or ())
    check_names(settings)
    from lab.jobs.reconstruct import reconstruct as job
    from lab.progress import reporting

    with reporting() as progress:
        result = job(settings, out, progress, dry_run=dry_run, until=until, checkpoints=checkpoints)
    if as_json:
        emit_json(result)
        return
    rows = result.pop("table", None)
    if rows:
        emit_rows(rows, False)
        emit_line("")
    emit_record(result, False)
