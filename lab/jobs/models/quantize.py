"""Job behind ``brainlab quantize``: a model becomes packed codes, a plan, and a ledger."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from lab.errors import InputError, MissingDataError
from lab.files import write_json, write_text
from lab.jobs.contract import Context, Device, Seed, Table, line, setting
from lab.jobs.models import plan as planning
from lab.jobs.models.plan import OfLayers, names, tables, totals_table
from lab.jobs.spelling import as_command
from lab.models.opening import model_files
from lab.models.preflight import check_recording, check_run_folder
from lab.models.weights import fingerprint

__all__ = ["KEPT", "Result", "Settings", "dry_run", "names", "run"]

KEPT = "training"
"""Folder of what a run that is stopped goes on from; gone when it is finished."""


class Settings(OfLayers):
    """Quantize a model into packed codes.

    Writes the codes, the plan and the ledger of what was done into one folder.
    """

    out: Path = setting(Path("runs/quantized"), "folder for the packed model and its ledger", short="-o")
    recording: Path | None = setting(
        None, "folder of recorded sampling to calibrate on; shipped denoisers make theirs"
    )
    seed: Seed = setting(0, "fixes everything random in the method")
    device: Device = setting(
        "auto", "where the method works; codes may differ by device, so a folder is of one"
    )
    show_layers: bool = setting(False, "print a row for each layer", flag="layers")


class Result(planning.Result):
    """As a plan's, of what was done; ``out`` is the folder."""

    out: str
    done_before: bool = False
    show_layers: bool = False

    def tables(self) -> list[Table]:
        """Return totals, after the layers if they were asked for."""
        shown = super().tables() if self.show_layers else [totals_table(self.totals)]
        return [line("done before: nothing was made again"), *shown] if self.done_before else shown

    def files(self) -> dict[str, str]:
        """Return what lies in the folder."""
        names = {"codes": "model.safetensors", "plan": "plan.json", "ledger": "ledger.json"}
        return {what: f"{self.out}/{name}" for what, name in names.items()}

    def next_step(self) -> str:
        """Return the line that loads it."""
        return (
            f"in Python: quant.load({self.out!r}, model) puts it into a bare model of the same architecture, "
            "in place, as pipe.unet of a diffusers pipeline (what it returns is the ledger)"
        )


def run(settings: Settings, context: Context) -> Result:
    """Quantize a model and write ``model.safetensors`` (packed codes), ``plan.json`` and ``ledger.json``.

    A folder that was finished with the same settings, of the same recipe, weights and recording by content,
    is left as it is. After a refusal nothing is left behind.

    Raises
    ------
    MissingDataError
        The method calibrates, the model is no shipped denoiser and there is no recording.
    InputError
        An unknown model, recipe or layer; a recording of another model; another result in the folder.
    """
    import quant
    from lab.models.opening import open_model
    from lab.runs.folder import Run, is_finished
    from lab.runs.older import complete
    from quant.api import check, refuse_nothing
    from quant.training.state import remove

    store, module, config = _begin(settings)
    out, model = settings.out, settings.model
    if not is_finished(out):  # refuse what cannot be before the folder is taken
        context.check()
        module = module or open_model(model, settings.part, settings.architecture)
        check(module, settings.recipe, store if _calibrates(settings.recipe) else None)
        refuse_nothing(quant.plan(module, settings.recipe, **settings.selection()))
    # a folder of an earlier version does not say where it was made
    with Run.open(out, config, complete(Settings, {}) | {"device": config["device"]}) as run:
        if run.finished:
            ledger = quant.Ledger.from_json((out / "ledger.json").read_text(encoding="utf-8"))
            shown = settings.show_layers
            return Result(model=model, **tables(ledger), out=str(out), show_layers=shown, done_before=True)
        try:
            ledger = _quantize(module, settings, run, store, context)
        except (quant.InputError, InputError):
            if [file.name for file in (out / KEPT).glob("*")] == ["state.json"]:  # begun, and nothing kept
                remove(out / KEPT)
            run.discard("plan.json")
            raise
    return Result(model=model, **tables(ledger), out=str(out), show_layers=settings.show_layers)


def dry_run(settings: Settings) -> planning.Result:
    """Plan it, and refuse what could not be done."""
    import quant
    from quant.api import refuse_nothing

    _begin(settings)
    names = set(planning.Settings.model_fields) & set(Settings.model_fields)  # a plan may be asked for more
    planned = planning.run(planning.Settings(**{n: getattr(settings, n) for n in names}), Context())
    refuse_nothing(quant.Plan.from_dict(planned.plan or {}))
    return planned.model_copy(update={"command": as_command("quantize", settings, always=("recipe",))})


def _begin(settings: Settings) -> tuple[Any, Any, dict[str, Any]]:
    """Return the recording, the model if it had to be opened, and what makes two results the same."""
    from lab.models.devices import choose_device
    from lab.models.opening import open_model
    from lab.runs.folder import config_hash

    check_run_folder(settings.out)
    store = _given_recording(settings.model, settings.recipe, settings.recording)
    module = None
    if (files := model_files(settings.model, settings.part, settings.architecture)) is None:
        module = open_model(settings.model, settings.part)  # of the hub: what it fetched is what counts
    content = {
        "recipe_hash": _recipe_hash(settings.recipe),
        "model_hash": fingerprint(files) if files else _hash_of(module),
    }
    if store is not None:
        content["recording_hash"] = config_hash({"shards": store.hash, **store.settings})
    given = settings.model_dump(mode="json", exclude={"out", "show_layers"})
    # codes of a method that works in floating point differ by device
    return store, module, {**given, "device": choose_device(settings.device), "made_from": content}


def _quantize(module: Any, settings: Settings, run: Any, store: Any, context: Context) -> Any:
    """Do it and write the files; the ledger."""
    import json

    import quant
    from lab.models.preflight import open_recording
    from quant.training.state import remove

    recipe, selection, device = settings.recipe, settings.selection(), run.config["device"]
    progress = context.progress
    module = module.to(device)
    progress(0, 3, "opening the recording")
    if not _calibrates(recipe):
        store = None
    elif store is None:
        store = open_recording(settings.model, device=device, progress=progress)
    planned = quant.plan(module, recipe, trajectories=store, **selection)
    write_json(run.path / "plan.json", planned.to_dict())
    progress(1, 3, "quantizing")
    # a run that was stopped while it trained, or solved layer by layer, goes on from there
    training = run.path / KEPT if _calibrates(recipe) else None
    ledger = quant.quantize_(
        module, recipe, trajectories=store, seed=settings.seed, keep_originals=False, progress=progress,
        state=training, solved=context.solved, **selection,
    )  # fmt: skip
    progress(2, 3, "writing codes")
    quant.export(module, run.path / "model.safetensors")
    if training is not None:
        remove(training)
    write_text(run.path / "ledger.json", json.dumps(ledger.to_dict(), indent=1, sort_keys=True) + "\n")
    run.finish()
    progress(3, 3, "done")
    return ledger


def _given_recording(model: str, recipe: str, folder: Path | None) -> Any:
    """Open the recording that was given; refuses a recipe that lacks one before any work."""
    from lab import zoo

    if _calibrates(recipe) and folder is None and model not in zoo.DENOISERS:
        raise MissingDataError(
            f"{recipe} calibrates on recorded sampling and {model!r} is no shipped denoiser: brainlab "
            f"record {shlex.quote(model)} --out FOLDER makes that, then give it as --recording FOLDER"
        )
    return None if folder is None else check_recording(model, folder)


def _calibrates(recipe: str) -> bool:
    from quant import recipes

    return recipes.resolve(recipe)[1].info.needs_calibration


def _recipe_hash(recipe: str) -> str:
    """Hash of what a recipe says, not of its name: a file may have been edited."""
    from lab.runs.folder import config_hash
    from quant import recipes

    _, method, config = recipes.resolve(recipe)
    return config_hash({"method": method.name, "config": config.model_dump(mode="json")})


def _hash_of(module: Any) -> str:
    """Hash of an opened model, for one whose files are not known."""
    from lab.runs.folder import config_hash
    from quant.sensitivity.by_layer import fingerprint as of_tensors

    return config_hash(
        {"config": repr(sorted(module.config.items(), key=str)), "tensors": of_tensors(module)}
    )
