"""Job behind ``brainlab plan``: what a recipe would do to a model, changing nothing."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Table, setting
from lab.jobs.spelling import as_command

MODEL = "shipped model, folder of a diffusers model or pipeline, safetensors file, or a hub name"
OUT = "not included"
"""The plan's word for layers outside the wildcards: they are counted, not listed."""
RECIPE = "preset (brainlab list presets), PRESET+field=value+..., or a preset's YAML file"


class OfModel(contract.Settings):
    """What every job on a model is asked for."""

    model: str = setting(..., MODEL, argument=True)
    part: str | None = setting(None, "of a pipeline, such as unet or transformer")


class OfLayers(OfModel):
    """What every job that applies a recipe layer by layer is asked for."""

    recipe: str = setting("rtn-w8a8", RECIPE, short="-r")
    include: tuple[str, ...] = setting((), "wildcard over layer names: only these", repeat=True)
    exclude: tuple[str, ...] = setting((), "wildcard over layer names: leave these alone", repeat=True)
    override: tuple[str, ...] = setting(
        (), "WILDCARD:field=value+... or WILDCARD:skip, for the layers that match", repeat=True
    )
    architecture: Path | None = setting(
        None, "config.json of a single file whose header does not say its architecture"
    )

    def selection(self) -> dict[str, Any]:
        """Return the arguments of `quant.plan` that say which layers and how."""
        return {
            "include": self.include, "exclude": self.exclude,
            "overrides": _overrides(self.override),
        }  # fmt: skip


class Settings(OfLayers):
    """Show what quantizing would do to a model.

    Every layer with its format, or the reason why it is skipped, bytes before and after, and the path that it
    takes here: native or simulated, and why.
    """

    native: bool = setting(False, "refuse what cannot run through the GPU's low-bit kernels here")


class Result(contract.Result):
    """A row for each Linear or Conv2d, totals, and the complete plan as `quant.Plan.to_dict` writes it.

    ``command`` does what was planned; it is empty where nothing would be quantized.
    """

    model: str
    layers: list[dict[str, Any]]
    totals: list[dict[str, Any]]
    plan: dict[str, Any] | None = None
    command: str = ""

    def tables(self) -> list[Table]:
        """Return layers with sizes in kB, reasons, then totals in MB."""
        kept = [row for row in self.layers if row["bytes before"] == row["bytes after"] and row["note"]]
        done = [row for row in self.layers if row not in kept]
        alike: dict[tuple[str, str], list[str]] = {}
        for row in kept:
            if row["note"] != OUT:
                alike.setdefault((_alike(row["layer"]), row["note"]), []).append(row["layer"])
        left: list[dict[str, Any]] = [
            {"left as it is": name if len(own) > 1 else own[0], "layers": len(own), "because": note}
            for (name, note), own in alike.items()
        ]
        if others := sum(row["note"] == OUT for row in kept):
            left.append({"left as it is": "others", "layers": others, "because": OUT})
        notes = Counter(row["note"] for row in done if row["note"])
        unusual = [{"not the usual way, because": note, "layers": n} for note, n in notes.items()]
        more = [Table(rows) for rows in (left, unusual) if rows]
        return [
            Table([_shown(row) for row in done]),
            *more,
            paths_table(self.layers),
            totals_table(self.totals),
        ]

    def next_step(self) -> str:
        """Return the command that does it."""
        return self.command


def names(settings: Any) -> None:
    """Refuse an unknown recipe, setting or model; needs no torch.

    Parameters
    ----------
    settings : OfModel
        With a recipe, and with an architecture or without.
    """
    from lab.models.opening import model_files
    from quant import recipes

    recipes.resolve(settings.recipe)
    model_files(settings.model, settings.part, getattr(settings, "architecture", None))


def run(settings: Settings, context: Context) -> Result:
    """Plan; the model stays as it is.

    Raises
    ------
    InputError
        An unknown model, recipe, setting or layer; nothing to quantize; native, and no layer has a kernel.
    HardwareError
        Native, and there is no device for it.
    """
    import quant
    from lab import zoo
    from lab.jobs.checks import refuse_native
    from lab.models.opening import open_model
    from lab.progress import duration
    from quant import recipes

    recipes.resolve(settings.recipe)  # refuse a bad name before a model is read
    context.check()
    module = open_model(settings.model, settings.part, settings.architecture)
    planned = quant.plan(module, settings.recipe, **settings.selection())
    if isinstance(settings, Settings) and settings.native:  # quantize asks for a plan, too
        refuse_native(planned, "auto")
    found = tables(planned)
    if planned.training is not None:
        found["totals"].append({"total": "training_time", "value": _training_time(planned)})
    elif planned.quantized:
        time = f"about {duration(max(1.0, planned.seconds))} on one CPU core"
        found["totals"].append({"total": "time_to_apply", "value": time})
    same = OfLayers(**{name: getattr(settings, name) for name in OfLayers.model_fields})
    command = as_command("quantize", same, always=("recipe",)) if planned.quantized else ""
    if command and settings.model not in zoo.DENOISERS and recipes.parse(settings.recipe).calibrates:
        command += " --recording FOLDER"  # that brainlab record wrote
    return Result(model=settings.model, **found, plan=planned.to_dict(), command=command)


def dry_run(settings: Settings) -> Result:
    """Plan: that changes nothing by itself."""
    return run(settings, Context())


def _training_time(planned: Any) -> str:
    from lab.progress import duration

    macs = sum(line.macs or 0 for line in planned.layers)
    cpu, gpu = planned.training.seconds(macs), planned.training.gpu_seconds(macs)
    return f"about {duration(gpu)} on a GPU, {duration(cpu)} on one CPU core"


def tables(planned: Any) -> dict[str, Any]:
    """Return the rows and totals of a plan or a ledger; ``here`` is the path that each layer takes here."""
    from lab.models.devices import choose_device
    from quant.layers.native.ways import way_of_line

    device = choose_device("auto")
    layers = [
        {
            "layer": layer.name, "kind": layer.kind, "shape": "x".join(map(str, layer.shape)),
            "bits": layer.bits, "bytes before": layer.bytes_before, "bytes after": layer.bytes_after,
            "note": layer.reason or "", "here": way_of_line(layer, device),
        }
        for layer in planned.layers
    ]  # fmt: skip
    return {"layers": layers, "totals": [{"total": k, "value": v} for k, v in planned.summary().items()]}


def paths_table(layers: list[dict[str, Any]]) -> Table:
    """Return how many layers take each path here, native or simulated, and why."""
    counts = Counter(row["here"] for row in layers if row["bits"] and row["here"] != "floating point")
    return Table([{"layers": count, "path here": path} for path, count in counts.most_common()])


_WORDS = {
    "n_layers": "layers", "n_quantized": "layers quantized", "macs_share": "share of multiplications",
    "mac_rule": "multiplications", "lowest_weight_sqnr_db": "worst layer's weights, SQNR in dB",
    "paths": "paths from codes", "size_by": "size by kind",
}  # fmt: skip


def totals_table(totals: list[dict[str, Any]]) -> Table:
    """Return totals for a person: megabytes, shares in per cent, and that bits are simulated."""
    rows = []
    rule = next((str(row["value"]) for row in totals if row["total"] == "mac_rule"), "counted")
    counted = rule.startswith("counted")
    for row in totals:
        name, value = row["total"], row["value"]
        if name == "macs_share" and not counted:
            name = "share of weights"
        elif name == "mac_rule" and not counted:
            value = "not counted: a forward of this model is not known, or needs real values"
        if name.startswith("bytes"):
            sizes = value if isinstance(value, dict) else {"": value}
            value = ", ".join(f"{part} {size / 1e6:.2f} MB".strip() for part, size in sizes.items())
            name = name.replace("bytes", "size")
        elif isinstance(value, dict) and name in ("macs_share", "share of weights"):
            value = ", ".join(f"{bits} {100 * share:.1f} %" for bits, share in value.items())
        elif isinstance(value, float):
            value = f"{value:.4g}"
        elif name == "paths":
            value = "; ".join(dict.fromkeys(path.rpartition("from codes: ")[2] for path in value))
        elif isinstance(value, list):
            value = "; ".join(map(str, value))
        rows.append({"name": _WORDS.get(name, name.replace("_", " ")), "value": value})
    return Table(
        [*rows, {"name": "arithmetic", "value": "simulated, unless asked for native"}], kind="record"
    )


def _alike(name: str) -> str:
    """Return a layer's name with a star for each number of a block: 24 alike are one line."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    size = {f"kB {when}": round(row[f"bytes {when}"] / 1e3, 1) for when in ("before", "after")}
    return {"layer": row["layer"], "bits": row["bits"], **size}


def _overrides(words: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in words:
        pattern, change = _override(one)
        if pattern in found:
            raise InputError(
                f"--override {one!r}: {pattern!r} is given twice; write it once: {pattern}:field=value+..."
            )
        found[pattern] = change
    return found


def _override(words: str) -> tuple[str, Any]:
    from quant.recipes import CHANGE, changes

    pattern, colon, text = words.rpartition(":")
    if not colon or not pattern:
        raise InputError(f"--override {words!r}: write WILDCARD:field=value or WILDCARD:skip")
    if text == "skip":
        return pattern, "skip"
    return pattern, changes(text.split(CHANGE), f"--override {words!r}", "field=value, or skip")
