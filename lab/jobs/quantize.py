"""Jobs behind ``brainlab plan`` and ``brainlab quantize``: plain data in, plain data out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.errors import InputError, MissingDataError
from lab.files import write_json, write_text
from lab.models.opening import model_files
from lab.models.preflight import check_recording
from lab.models.weights import fingerprint
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
    from lab.models.opening import open_model

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

    A folder that was finished with the same settings, of the same recipe, weights and recording by content,
    is left as it is. After a refusal nothing is left behind.

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
    import quant
    from lab.models.opening import open_model
    from lab.runs.folder import Run, config_hash
    from quant.api import check

    store = _given_recording(model, recipe, recording)
    module = None
    if (files := model_files(model, part, config)) is None:
        module = open_model(model, part, config)  # of the hub: what it fetched is what counts
    settings = {
        "model": model, "part": part, "recipe": recipe, "seed": seed,
        "recipe_hash": _recipe_hash(recipe), "model_hash": fingerprint(files) if files else _hash_of(module),
    }  # fmt: skip
    if recording is not None:
        settings |= {
            "recording": str(recording),
            "recording_hash": config_hash({"shards": store.hash, **store.settings}),
        }
    if config is not None:
        settings["config"] = str(config)
    if not (out / "done.json").is_file():  # refuse what cannot be before the folder is taken
        module = module or open_model(model, part, config)
        check(module, recipe, store if _calibrates(recipe) else None)
        quant.plan(module, recipe)
    with Run.open(out, settings) as run:
        if run.finished:
            ledger = quant.Ledger.from_json((out / "ledger.json").read_text(encoding="utf-8"))
            return {"model": model, **_tables(ledger), "out": str(out), "done before": True}
        try:
            ledger = _quantize(module, model, recipe, run, store, seed, progress)
        except (quant.InputError, InputError):
            run.discard("plan.json")
            raise
    return {"model": model, **_tables(ledger), "out": str(out)}


def _quantize(
    module: Any, model: str, recipe: str, run: Any, store: Any, seed: int, progress: Progress
) -> Any:
    """Do it and write the files; the ledger."""
    import json

    import quant

    progress(0, 3, "opening the recording")
    if not _calibrates(recipe):
        store = None
    elif store is None:
        store = open_recording(model, progress=progress)
    write_json(run.path / "plan.json", quant.plan(module, recipe, trajectories=store).to_dict())
    progress(1, 3, "quantizing")
    ledger = quant.quantize_(
        module, recipe, trajectories=store, seed=seed, keep_originals=False, progress=progress
    )
    progress(2, 3, "writing codes")
    quant.export(module, run.path / "model.safetensors")
    write_text(run.path / "ledger.json", json.dumps(ledger.to_dict(), indent=1, sort_keys=True) + "\n")
    run.finish()
    progress(3, 3, "done")
    return ledger


def open_recording(
    model: str, folder: Path | None = None, device: Any = "cpu", progress: Progress = silent
) -> Any:
    """Open the recording in a folder, or record a shipped denoiser (once; it is kept under ``runs``)."""
    import quant

    if folder is not None:
        return quant.Trajectories.open(folder)
    from lab.zoo.recordings import zoo_recording

    return zoo_recording(model, device=device, progress=progress)


def _given_recording(model: str, recipe: str, folder: Path | None) -> Any:
    """Open the recording that was given; refuses a recipe that lacks one before any work."""
    from lab import zoo

    if _calibrates(recipe) and folder is None and model not in zoo.DENOISERS:
        raise MissingDataError(
            f"{recipe} calibrates on recorded sampling and {model!r} is no shipped denoiser: make a "
            "recording with quant.record, then give --recording FOLDER"
        )
    return None if folder is None else check_recording(model, folder)


def _calibrates(recipe: str) -> bool:
    import quant

    return quant.get_method(quant.get_preset(recipe).method).info.needs_calibration


def _recipe_hash(recipe: str) -> str:
    """Hash of what a preset says, not of its name: a file may have been edited."""
    import quant
    from lab.runs.folder import config_hash

    _, method, config = quant.registry.resolve(recipe)
    return config_hash({"method": method.name, "config": config.model_dump(mode="json")})


def _hash_of(module: Any) -> str:
    """Hash of an opened model, for one whose files are not known."""
    from lab.runs.folder import config_hash
    from quant.sensitivity.by_layer import fingerprint as of_tensors

    return config_hash(
        {"config": repr(sorted(module.config.items(), key=str)), "tensors": of_tensors(module)}
    )


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
