"""``brainlab bench``: how long things take, beside what they were measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli.options import AsJson, new_app
from lab.cli.output import emit_json, emit_line, emit_rows

app = new_app("Time the library; results are JSON with the device's name.")


@app.command("svdquant")
def svdquant(
    size: Annotated[str, typer.Option("--size", help="Shapes of which model: zoo, sdxl or flux.")] = "zoo",
    fraction: Annotated[
        float, typer.Option("--fraction", help="Share of the layers of each shape that is measured.")
    ] = 0.05,
    recipe: Annotated[str, typer.Option("--recipe", help="Preset of svdquant.")] = "svdquant-w4a4",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 ...")] = "cpu",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples of a calibration forward.")] = 16,
    out: Annotated[Path, typer.Option("--out", help="JSON file of the result.")] = Path("svdquant.json"),
    seed: Annotated[int, typer.Option("--seed", help="Fixes weights and inputs.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Time SVDQuant's calibration at the size of a large model, without having the model.

    A share of the layers of every distinct shape is quantized for real; the rest is extrapolated by count,
    and the result says which is which.
    """
    from lab.jobs.bench_svdquant import bench_svdquant
    from lab.progress import reporting

    with reporting() as progress:
        result = bench_svdquant(
            size, out, fraction=fraction, recipe=recipe, device=device, batch=batch, seed=seed,
            progress=progress,
        )  # fmt: skip
    if as_json:
        emit_json(result)
        return
    emit_rows(
        result["shapes"], False, ["shape", "treated", "count", "measured", "seconds", "install_seconds"]
    )
    emit_line("")
    emit_rows(result["blocks"], False)
    emit_line("")
    keys = ("device", "layers_quantized", "layers_measured", "seconds", "total_seconds", "peak_bytes")
    emit_rows([{"result": k, "value": result[k]} for k in keys], False)
