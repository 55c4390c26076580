"""``brainlab compare``: recipes side by side on one model."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from lab.cli.options import AsJson, Device
from lab.cli.output import emit_json, emit_line, emit_rows


def compare(
    model: Annotated[
        str | None, typer.Argument(help="unet-64, dit-64, or a model with --recording.", show_default=False)
    ] = None,
    recipes: Annotated[
        str, typer.Option("--recipes", help="A,B,…; wildcards; PRESET+field=value; groups such as all-ptq.")
    ] = "all-ptq",
    out: Annotated[Path, typer.Option("--out", help="Folder; finished parts in it are used again.")] = Path(
        "runs/compare"
    ),
    n: Annotated[int, typer.Option("--n", help="Pictures a seed.")] = 256,
    seeds: Annotated[int, typer.Option("--seeds", help="Seeds of noise and calibration.")] = 3,
    steps: Annotated[int, typer.Option("--steps", help="Sampling steps.")] = 20,
    guidance: Annotated[float, typer.Option("--guidance", help="Classifier-free guidance; 1 is none.")] = 2.0,
    calibrate: Annotated[
        int, typer.Option("--calibrate", help="Samples of a shipped model's recording.")
    ] = 64,
    batch: Annotated[int, typer.Option("--batch", help="Pictures at a time.")] = 256,
    recording: Annotated[
        Path | None, typer.Option("--recording", help="Folder that quant.record wrote.")
    ] = None,
    part: Annotated[str | None, typer.Option("--part", help="Part of a pipeline, such as unet.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Processes that share the recipes and the device.")] = 1,
    claims: Annotated[Path | None, typer.Option("--claims", hidden=True)] = None,
    calibrate_on: Annotated[
        str | None,
        typer.Option("--calibrate-on", help="cpu, cuda; mixed: what trains on the GPU, the rest on the CPU."),
    ] = None,
    merge: Annotated[
        list[Path] | None, typer.Option("--merge", help="Put comparisons together; may be repeated.")
    ] = None,
    publish: Annotated[
        Path | None,
        typer.Option("--publish", help="Folder for MODEL-ptq.md, .json, .png, as committed; or FILE.md."),
    ] = None,
    gates: Annotated[bool, typer.Option(help="Run the gates that prove the meter.")] = True,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Compare recipes on one model, in one report.

    Same noise and conditions for all, intervals, gates that prove the meter. The same command goes on after
    a stop, and with more recipes it adds them.
    """
    from lab.compare.bench import PanelSettings
    from lab.errors import InputError
    from lab.jobs import compare as job
    from lab.progress import reporting

    if merge:
        _show(job.merge(merge, out, publish), out, as_json)
        return
    if model is None:
        raise InputError(
            "compare needs a model (unet-64, dit-64, a folder), or --merge with folders of comparisons"
        )
    settings = PanelSettings(
        n=n, seeds=seeds, steps=steps, guidance=guidance, calibrate=calibrate, batch=batch
    )
    words = [model, "--recipes", recipes, "--n", n, "--seeds", seeds, "--steps", steps]
    words += ["--guidance", f"{guidance:g}", "--calibrate", calibrate, "--batch", batch]
    for name, value in (
        ("recording", recording), ("part", part), ("device", device), ("calibrate-on", calibrate_on),
    ):  # fmt: skip
        words += [f"--{name}", value] if value is not None else []
    words += [] if gates else ["--no-gates"]
    arguments = [str(word) for word in words]
    if jobs != 1:
        folders = job.in_processes(jobs, arguments, out)
        _show(job.merge(folders, out, publish), out, as_json)
        return
    with reporting() as progress:
        result = job.compare(
            model, recipes, out, settings, device=device or "auto", recording=recording, part=part,
            claims=claims, calibrate_on=calibrate_on, gates=gates,
            command=shlex.join(["brainlab", "compare", *arguments]), publish=publish, progress=progress,
        )  # fmt: skip
    _show(result, out, as_json)


def _show(result: dict, out: Path, as_json: bool) -> None:
    from lab.compare.tables import cell, shown_columns
    from lab.jobs.compare import FAILED

    if as_json:
        emit_json({k: v for k, v in result.items() if k != "curves"})
    else:
        columns = shown_columns(result["rows"])
        emit_rows(
            [{"recipe": row["recipe"], **{c[1]: cell(row, c[0], c[2], c[3]) for c in columns}}
             for row in result["rows"]],
            False,
        )  # fmt: skip
        emit_line("")
        emit_rows(
            [{"gate": g["name"], "": "passed" if g["passed"] else "FAILED", "found": g["found"]}
             for g in result["gates"]],
            False,
        )  # fmt: skip
        verdicts = [o["verdict"] for o in result["orderings"]]
        counts = {word: verdicts.count(word) for word in dict.fromkeys(verdicts)}
        said = ", ".join(f"{k} {v}" for k, v in counts.items()) or "none are claimed for this model"
        emit_line(f"\norderings: {said}")
        for failed in result["failed"]:
            emit_line(f"not measured: {failed['recipe']}, seed {failed['seed']}: {failed['reason']}")
        emit_line(f"report: {out / 'report.html'}")
    if result["failed"]:
        raise typer.Exit(FAILED)
