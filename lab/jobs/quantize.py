"""Jobs behind ``brainlab plan`` and ``brainlab quantize``: plain data in, plain data out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.progress import Progress, silent


def plan(model: str, recipe: str, part: str | None = None, config: Path | None = None) -> dict[str, Any]:
    """Say what a recipe would do to a model, changing nothing.

    Parameters
    ----------
    model : str
        Shipped model, diffusers folder, single safetensors file, or hub name.
    recipe : str
        Name of a preset.
    part : str, optional
        Part of a pipeline.
    config : Path, optional
        Architecture of a single file.

    Returns
    -------
    dict
        ``layers`` (one row a Linear or Conv2d), ``totals`` (name, value), ``plan`` (complete, JSON-able).
    """
    import quant
    from lab.jobs.models import open_model

    quant.get_preset(recipe)  # refuse a bad name before a model is read
    planned = quant.plan(open_model(model, part, config), recipe)
    return {"model": model, **_tables(planned), "plan": planned.to_dict()}


def quantize(
    model: str,
    recipe: str,
    out: Path,
    part: str | None = None,
    seed: int = 0,
    recording: Path | None = None,
    config: Path | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Quantize a model and write ``model.safetensors`` (packed codes), ``plan.json`` and ``ledger.json``.

    A folder that was finished with the same settings is left as it is.

    Parameters
    ----------
    recording : Path, optional
        Folder that `quant.record` wrote, for methods that calibrate; shipped denoisers record themselves.
    config : Path, optional
        Architecture of a single file.

    Raises
    ------
    MissingDataError
        The method calibrates, the model is no shipped denoiser and there is no recording.
    """
    import json

    import quant
    from lab.files import write_json, write_text
    from lab.jobs.models import open_model
    from lab.runs import Run

    settings = {"model": model, "part": part, "recipe": recipe, "seed": seed}
    if recording is not None:
        settings["recording"] = str(recording)
    if config is not None:
        settings["config"] = str(config)
    needed = _needs_recording(model, recipe, recording)
    with Run.open(out, settings) as run:
        if run.finished:
            ledger = quant.Ledger.from_json((out / "ledger.json").read_text(encoding="utf-8"))
            return {"model": model, **_tables(ledger), "out": str(out), "done before": True}
        progress(0, 3, "opening the model")
        module = open_model(model, part, config)
        store = open_recording(model, recording, progress=progress) if needed else None
        write_json(out / "plan.json", quant.plan(module, recipe, trajectories=store).to_dict())
        progress(1, 3, "quantizing")
        ledger = quant.quantize_(
            module, recipe, trajectories=store, seed=seed, keep_originals=False, progress=progress
        )
        progress(2, 3, "writing codes")
        quant.export(module, out / "model.safetensors")
        write_text(out / "ledger.json", json.dumps(ledger.to_dict(), indent=1, sort_keys=True) + "\n")
        run.finish()
        progress(3, 3, "done")
    return {"model": model, **_tables(ledger), "out": str(out)}


def open_recording(
    model: str, folder: Path | None = None, device: Any = "cpu", progress: Progress = silent
) -> Any:
    """Open the recording in a folder, or record a shipped denoiser (once; it is kept under ``runs``)."""
    import quant

    if folder is not None:
        return quant.Trajectories.open(folder)
    from lab.recordings import zoo_recording

    return zoo_recording(model, device=device, progress=progress)


def _needs_recording(model: str, recipe: str, folder: Path | None) -> bool:
    """Whether the recipe calibrates; refuses one that lacks a recording before any work."""
    import quant
    from lab import zoo
    from lab.errors import MissingDataError

    needs = quant.get_method(quant.get_preset(recipe).method).info.needs_calibration
    if needs and folder is None and model not in zoo.DENOISERS:
        raise MissingDataError(
            f"{recipe} calibrates on recorded sampling and {model!r} is no shipped denoiser: make a "
            "recording with quant.record, then give --recording FOLDER"
        )
    if folder is not None:
        quant.Trajectories.open(folder)
    return needs


def _tables(planned: Any) -> dict[str, Any]:
    layers = [
        {
            "layer": layer.name,
            "kind": layer.kind,
            "shape": "x".join(map(str, layer.shape)),
            "bits": layer.bits,
            "bytes before": layer.bytes_before,
            "bytes after": layer.bytes_after,
            "note": layer.reason or "",
        }
        for layer in planned.layers
    ]
    return {
        "layers": layers,
        "totals": [{"total": k, "value": _flat(v)} for k, v in planned.summary().items()],
    }


def _flat(value: Any) -> Any:
    return (
        {k: round(v, 4) if isinstance(v, float) else v for k, v in value.items()}
        if isinstance(value, Mapping)
        else value
    )
