"""Job behind ``brainlab sensitivity``: one layer on or off, error against bits, error over time."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Numbers, Seed, Table, line, setting
from lab.jobs.models.plan import RECIPE, OfLayers, OfModel, names
from lab.jobs.spelling import as_command
from lab.models.devices import choose_device
from quant import recipes, registry

__all__ = ["Result", "Settings", "dry_run", "names", "run"]

SAMPLE = ("ssim", "final_sqnr_db", "final_nmse")


class Settings(OfModel):
    """Quantize one layer, or all but one, and measure.

    Writes the sorted table as JSON, figures beside it, and the error of the whole quantized model along the
    sampler's steps.
    """

    out: Path = setting(..., "JSON file; continued if it was begun", short="-o")
    recipe: str = setting("rtn-w8a8", RECIPE, short="-r")
    mode: Literal["one-on", "one-off"] = setting(
        "one-on", "one-on: one layer quantized; one-off: all but one"
    )
    metric: Literal["sqnr_db", "nmse", "ssim", "final_sqnr_db", "final_nmse"] = setting(
        "sqnr_db", "of the prediction: sqnr_db, nmse; of samples: ssim, final_sqnr_db, final_nmse"
    )
    bits: Numbers = setting((), "weight bits to try in turn, as 2,4,8; none: the recipe's", unit="bits")
    side: Literal["both", "weight", "activation"] = setting("both", "what of a layer is quantized")
    layers: str = setting("*", "wildcard over layer names, as '*attn2*'")
    samples: int = setting(4, "recorded samples to compare on", ge=1, le=1000)
    timesteps: int = setting(4, "timesteps of them, evenly spread", ge=1, le=1000)
    growth: bool = setting(True, "follow the error along the steps of the recording's sampler")
    recording: Path | None = setting(None, "folder of recorded sampling; shipped denoisers make theirs")
    device: Device = setting("auto", "where the model runs")
    seed: Seed = setting(0, "fixes everything random in the method")
    top: int = setting(20, "rows to print", ge=1)


class Result(contract.Result):
    """Rows worst first, everything quantized (``all``), error along the steps, figures, and the table."""

    model: str
    recipe: str
    mode: str
    metric: str
    rows: list[dict[str, Any]]
    all: list[dict[str, Any]]
    growth: list[dict[str, float]]
    figures: list[str]
    out: str
    top: int = 20
    part: str | None = None
    note: str = ""
    """Why the error along the steps is not there."""

    def tables(self) -> list[Table]:
        """Return the worst layers."""
        left = len(self.rows) - self.top
        shown = Table([*self.all, *self.rows[: self.top]], ("layer", "kind", "setting", "side", self.metric))
        more = [line(f"and {left} more rows")] if left > 0 else []
        return [shown, *more, *([line(self.note)] if self.note else [])]

    def files(self) -> dict[str, str]:
        """Return the table and the figures."""
        return {"table": self.out, "figures": ", ".join(self.figures)}

    def next_step(self) -> str:
        """Return how the worst layer is left alone."""
        worst = (self.rows[0]["layer"],) if self.rows else ()
        asked = OfLayers(model=self.model, part=self.part, recipe=self.recipe, exclude=worst)
        return as_command("plan", asked, always=("recipe",))


def run(settings: Settings, context: Context) -> Result:
    """Measure what each layer's quantization does to a denoiser, and write the table.

    Raises
    ------
    InputError
        A name or number is wrong, or ``out`` holds a table of other settings.
    MissingDataError
        No recording for a model that is not shipped.
    """
    from lab.files import write_json
    from lab.models.preflight import open_recording
    from quant.sensitivity.by_layer import ALL, layer_sensitivity

    changes, module, device = _open(settings)
    model, recipe, metric, out = settings.model, settings.recipe, settings.metric, settings.out
    samples, seed = settings.samples, settings.seed
    include = _include(settings)
    store = open_recording(model, settings.recording, device=device, progress=context.progress)
    sampler, note = _sampler(store, settings)
    probes = _probes(store, sampler if metric in SAMPLE else None, samples, settings.timesteps)
    out.parent.mkdir(parents=True, exist_ok=True)
    table = layer_sensitivity(
        module, recipe, store, settings=changes, sides=(settings.side,), mode=settings.mode, probes=probes,
        include=include, path=out, seed=seed, progress=context.progress,
    )  # fmt: skip
    rows = [_flat(row) for row in table.sorted(metric)]
    steps = _known_growth(out, recipe)
    if settings.growth and not note and not steps:
        context.progress(0, 1, "error along the trajectory")
        steps = _growth(module, recipe, store, sampler, include, samples, seed)
        context.progress(1, 1, "error along the trajectory")
    whole = [_flat(row) for row in table.rows if row.layer == ALL]
    about: dict[str, Any] = {"model": model, "recipe": recipe, "mode": settings.mode, "metric": metric}
    stored = json.loads(json.dumps({"made_with": table.made_with, "rows": _stored(table, metric)}))
    write_json(out, {**about, **stored, "growth": steps})
    result = {**about, "rows": rows, "all": whole, "growth": steps, "out": str(out)}
    figures = _draw(result, out, samples, settings.timesteps, seed)
    return Result(**result, figures=figures, top=settings.top, part=settings.part, note=note)


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be measured."""
    import quant

    changes, module, device = _open(settings)
    layers = quant.plan(module, settings.recipe, include=_include(settings)).quantized
    facts = {"would measure": f"{len(layers)} layers", "settings": len(changes or {"": {}})}
    return Foreseen(facts={**facts, "device": device, "out": str(settings.out)})


def _include(settings: Settings) -> tuple[str, ...]:
    return () if settings.layers == "*" else (settings.layers,)


def _open(settings: Settings) -> tuple[dict[str, dict[str, Any]] | None, Any, str]:
    """Refuse what cannot work; return changes of the recipe by number of bits, the model, the device."""
    from lab.models.opening import open_model

    changes = _check(settings)
    device = choose_device(settings.device)
    module = open_model(settings.model, settings.part).to(device)
    _check_layers(module, settings.recipe, changes, _include(settings))
    return changes, module, device


def _check(settings: Settings) -> dict[str, dict[str, Any]] | None:
    """Refuse what cannot work before a model is opened; settings by name for each number of bits."""
    from lab.models.preflight import check_file, check_recording

    check_file(settings.out, ".json")
    _, method, config = recipes.resolve(settings.recipe)
    check_recording(settings.model, settings.recording)
    if not settings.bits:
        return None
    if "weight_bits" not in method.config.model_fields:
        raise InputError(
            f"--bits: {settings.recipe} is a recipe of {method.name}, whose weight bits are not a setting"
        )
    new = {f"{b}": {"weight_bits": b} for b in sorted(set(settings.bits))}
    for values in new.values():
        registry.validate(method, {**config.model_dump(), **values})
    return new


def _check_layers(
    module: Any, recipe: str, settings: dict[str, dict[str, Any]] | None, include: tuple[str, ...]
) -> None:
    """Refuse layers that the recipe leaves alone, before anything is recorded."""
    import quant

    _, method, config = recipes.resolve(recipe)
    for change in (settings or {"": {}}).values():
        changed = registry.validate(method, {**config.model_dump(), **change})
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


def _sampler(store: Any, settings: Settings) -> tuple[Any, str]:
    """Return the sampler of a recording, and why there is no error by step; metrics need the first."""
    from lab.zoo.recordings import recorded_scheduler
    from quant.recordings.repeat import Sampler

    sampler, why = None, ""
    try:
        sampler = Sampler(store, recorded_scheduler(store), store.null_condition)
        if not store.keys("evaluate"):
            why = f"the recording at {store.path} has no samples besides those of calibration"
    except InputError as fault:
        if settings.metric in SAMPLE:
            raise
        why = str(fault)
    return sampler, f"no error along the steps: {why}" if settings.growth and why else ""


def _probes(store: Any, sampler: Any, samples: int, timesteps: int) -> list[Any]:
    from quant.sensitivity.probes import FinalSample, NoisePrediction

    probes: list[Any] = [NoisePrediction(store, samples, timesteps)]
    if sampler is not None:
        probes.append(FinalSample(sampler, samples, timesteps))
    return probes


def _flat(row: Any) -> dict[str, Any]:
    return {"layer": row.layer, "kind": row.kind, "setting": row.setting, "side": row.side, **row.metrics}


def _stored(table: Any, metric: str) -> list[dict[str, Any]]:
    """Rows as `Sensitivity.save` writes them: everything quantized first, then worst first."""
    from dataclasses import asdict

    from quant.sensitivity.by_layer import ALL

    whole = [row for row in table.rows if row.layer == ALL]
    return [asdict(row) for row in (*whole, *table.sorted(metric))]


def _known_growth(out: Path, recipe: str) -> list[dict[str, float]]:
    """Error by step from a table that was finished before (its settings have been compared by now).

    With --bits the table's settings are equal for recipes of other bits, and the error by step is not.
    """
    known = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    return known.get("growth", []) if known.get("recipe") == recipe else []


def _growth(
    module: Any, recipe: str, store: Any, sampler: Any, include: tuple[str, ...], samples: int, seed: int
) -> list[dict[str, float]]:
    import quant
    from quant.sensitivity.probes import error_growth

    quant.quantize_(module, recipe, trajectories=store, include=include, seed=seed)
    try:
        return error_growth(module, sampler, samples=samples)
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
