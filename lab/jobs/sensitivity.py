"""Job behind ``brainlab sensitivity``: one layer on or off, error against bits, error over time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.progress import Progress, silent

PREDICTION = ("sqnr_db", "nmse")
SAMPLE = ("ssim", "final_sqnr_db", "final_nmse")
MODES = ("one-on", "one-off")
SIDES = ("both", "weight", "activation")


def sensitivity(
    model: str,
    recipe: str,
    out: Path,
    *,
    mode: str = "one-on",
    metric: str = "sqnr_db",
    bits: Sequence[int] = (),
    side: str = "both",
    layers: str = "*",
    samples: int = 4,
    timesteps: int = 4,
    growth: bool = True,
    recording: Path | None = None,
    part: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure what each layer's quantization does to a denoiser, and write the table.

    Parameters
    ----------
    model : str
        Shipped denoiser, diffusers folder, or hub name.
    recipe : str
        Preset.
    out : Path
        JSON file; an unfinished one of the same settings is continued. Figures stand beside it as PNG.
    mode : {"one-on", "one-off"}
        One layer quantized and the rest in full precision, or the other way round.
    metric : str
        Rows are sorted by it. ``sqnr_db`` and ``nmse`` are of the prediction at recorded points; ``ssim``,
        ``final_sqnr_db`` and ``final_nmse`` of samples drawn with few steps: a sampling run a row.
    bits : sequence of int
        Weight bits to try in turn in place of the recipe's; empty: the recipe as it is.
    side : {"both", "weight", "activation"}
        What of a layer is quantized.
    layers : str
        Wildcard over layer names.
    samples, timesteps : int
        Recorded points that the prediction is compared at.
    growth : bool
        Follow the error of the whole quantized model step by step (shipped denoisers only).
    recording : Path, optional
        Made by `quant.record` with this model; a shipped denoiser records itself.
    part : str, optional
        Part of a pipeline.
    device : {"auto", "cpu", "cuda"}
    seed : int

    Returns
    -------
    dict
        ``model``, ``recipe``, ``mode``, ``metric``, ``rows`` (worst first), ``all`` (everything quantized),
        ``growth``, ``figures``, ``out``.

    Raises
    ------
    InputError
        A name or number is wrong, or ``out`` holds a table of other settings.
    MissingDataError
        No recording for a model that is not shipped.
    """
    from lab.files import write_json
    from lab.jobs.quantize import open_recording
    from lab.jobs.zoo import choose_device
    from lab.models.opening import open_model
    from quant.sensitivity.by_layer import ALL, layer_sensitivity

    settings = _check(model, recipe, out, mode, metric, bits, side, samples, timesteps, recording)
    device = choose_device(device)
    module = open_model(model, part).to(device)
    include = () if layers == "*" else (layers,)
    _check_layers(module, recipe, settings, include)
    store = open_recording(model, recording, device=device, progress=progress)
    probes = _probes(model, store, metric, samples, timesteps)
    out.parent.mkdir(parents=True, exist_ok=True)
    table = layer_sensitivity(
        module, recipe, store, settings=settings, sides=(side,), mode=mode, probes=probes,  # type: ignore
        include=include, path=out, seed=seed, progress=progress,
    )  # fmt: skip
    rows = [_flat(row) for row in table.sorted(metric)]
    steps = _known_growth(out)
    if growth and model in _shipped() and not steps:
        progress(0, 1, "error along the trajectory")
        steps = _growth(module, recipe, store, model, include, samples, seed)
        progress(1, 1, "error along the trajectory")
    whole = [_flat(row) for row in table.rows if row.layer == ALL]
    about = {"model": model, "recipe": recipe, "mode": mode, "metric": metric}
    stored = json.loads(json.dumps({"made_with": table.made_with, "rows": _stored(table, metric)}))
    write_json(out, {**about, **stored, "growth": steps})
    result = {**about, "rows": rows, "all": whole, "growth": steps, "out": str(out)}
    return {**result, "figures": _draw(result, out, samples, timesteps, seed)}


def _check(
    model: str, recipe: str, out: Path, mode: str, metric: str, bits: Sequence[int], side: str, samples: int,
    timesteps: int, recording: Path | None,
) -> dict[str, dict[str, Any]] | None:  # fmt: skip
    """Refuse what cannot work before a model is opened; settings by name for each number of bits."""
    import quant
    from lab.models.preflight import check_json_file, check_recording

    for what, value, allowed in (
        ("--mode", mode, MODES), ("--metric", metric, (*PREDICTION, *SAMPLE)), ("--side", side, SIDES),
    ):  # fmt: skip
        if value not in allowed:
            raise InputError(f"{what} {value!r}: must be one of {', '.join(allowed)}")
    for what, number in (("--samples", samples), ("--timesteps", timesteps)):
        if not 1 <= number <= 1000:
            raise InputError(f"{what} {number}: must be 1 to 1000")
    check_json_file(out)
    if metric in SAMPLE and model not in _shipped():
        raise InputError(
            f"--metric {metric} draws samples, which needs the scheduler of a shipped denoiser "
            f"({', '.join(_shipped())}); use one of {', '.join(PREDICTION)}"
        )
    _, method, config = quant.registry.resolve(recipe)
    check_recording(model, recording)
    if not bits:
        return None
    if "weight_bits" not in method.config.model_fields:
        raise InputError(
            f"--bits: {recipe} is a recipe of {method.name}, whose weight bits are not a setting"
        )
    new = {f"{b}": {"weight_bits": b} for b in sorted(set(bits))}
    for values in new.values():
        quant.registry.validate(method, {**config.model_dump(), **values})
    return new


def _check_layers(
    module: Any, recipe: str, settings: dict[str, dict[str, Any]] | None, include: tuple[str, ...]
) -> None:
    """Refuse layers that the recipe leaves alone, before anything is recorded."""
    import quant

    _, method, config = quant.registry.resolve(recipe)
    for change in (settings or {"": {}}).values():
        changed = quant.registry.validate(method, {**config.model_dump(), **change})
        planned = quant.plan(module, changed, include=include)
        if not planned.quantized:
            matched = [
                line for line in planned.layers
                if not include or any(fnmatchcase(line.name, pattern) for pattern in include)
            ]  # fmt: skip
            first = (matched or planned.layers)[0]
            raise InputError(
                f"--layers {' '.join(include) or '*'}: {recipe} quantizes none of these layers, such as "
                f"{first.name} ({first.reason}); choose other layers or another recipe"
            )


def _shipped() -> tuple[str, ...]:
    from lab import zoo

    return zoo.DENOISERS


def _sampler(model: str, store: Any) -> Any:
    from lab.zoo.recordings import zoo_scheduler
    from quant.recordings.sampling import Sampler

    return Sampler(store, zoo_scheduler(), store.null_condition)


def _probes(model: str, store: Any, metric: str, samples: int, timesteps: int) -> list[Any]:
    from quant.sensitivity.probes import FinalSample, NoisePrediction

    probes: list[Any] = [NoisePrediction(store, samples, timesteps)]
    if metric in SAMPLE:
        probes.append(FinalSample(_sampler(model, store), samples, timesteps))
    return probes


def _flat(row: Any) -> dict[str, Any]:
    return {"layer": row.layer, "kind": row.kind, "setting": row.setting, "side": row.side, **row.metrics}


def _stored(table: Any, metric: str) -> list[dict[str, Any]]:
    """Rows as `Sensitivity.save` writes them: everything quantized first, then worst first."""
    from dataclasses import asdict

    from quant.sensitivity.by_layer import ALL

    whole = [row for row in table.rows if row.layer == ALL]
    return [asdict(row) for row in (*whole, *table.sorted(metric))]


def _known_growth(out: Path) -> list[dict[str, float]]:
    """Error by step from a table that was finished before (its settings have been compared by now)."""
    return json.loads(out.read_text(encoding="utf-8")).get("growth", []) if out.is_file() else []


def _growth(
    module: Any, recipe: str, store: Any, model: str, include: tuple[str, ...], samples: int, seed: int
) -> list[dict[str, float]]:
    import quant
    from quant.sensitivity.probes import error_growth

    quant.quantize_(module, recipe, trajectories=store, include=include, seed=seed)
    try:
        return error_growth(module, _sampler(model, store), samples=samples)
    finally:
        quant.restore_(module)


def _draw(result: dict[str, Any], out: Path, samples: int, timesteps: int, seed: int) -> list[str]:
    """Figures beside the table."""
    from dataclasses import replace
    from importlib.metadata import version

    from lab.figures.plate import Provenance
    from lab.figures.sensitivity import error_along_steps, error_by_bits, worst_layers
    from lab.files import replacing

    source = Provenance(
        f"{result['model']}, recipe {result['recipe']} (simulated)",
        f"{samples} recorded samples at {timesteps} timesteps", seed, version=version("brainit-lab"),
    )  # fmt: skip
    # the error along the trajectory is measured at every step of it
    whole = replace(source, samples=f"{samples} recorded samples at every step")
    plates = {"layers": worst_layers(result["rows"], result["metric"], result["mode"], source)}
    if len({row["setting"] for row in result["rows"]}) > 1:
        plates["bits"] = error_by_bits(result["rows"], result["metric"], source)
    if result["growth"]:
        plates["steps"] = error_along_steps(result["growth"], whole)
    paths = []
    for name, plate in plates.items():
        path = out.with_name(f"{out.stem}-{name}.png")
        with replacing(path) as temporary:
            temporary.write_bytes(plate.png(foot=True))
        paths.append(str(path))
    return paths
