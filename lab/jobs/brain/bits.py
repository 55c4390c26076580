"""Job behind ``brainlab brain bits``: reconstruction against bits, from one trained run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.brain.scores import warned
from lab.jobs.checks import TRAINING_MINUTES
from lab.jobs.contract import Context, Device, Foreseen, Table, Words, record, setting

if TYPE_CHECKING:
    import numpy as np

    from lab.decoding.recipes import DecoderRecipe
    from lab.decoding.trained import TrainedRun
    from quant.recipes import Recipe


class Settings(contract.Settings):
    """Measure reconstruction against bits, from one trained run.

    The brain's networks are not trained again: for each recipe the run's decoder is calibrated, or trained,
    on training trials that its training had left out, then the test pictures are decoded. One table, one
    figure, one page.
    """

    folder: Path = setting(..., "run folder of brain reconstruct or train; only read", argument=True)
    recipes: Words = setting(
        (), "recipes, PRESET or PRESET+field=value each; default: the best preset at 8, 6, 4 and 3 bits"
    )
    out: Path = setting(
        Path("runs/bits"), "folder of table and page; the same command goes on in it after a stop", short="-o"
    )
    training_minutes: float = setting(
        TRAINING_MINUTES, "what a recipe that trains may take, by its estimate", unit="minutes", ge=0
    )
    root: Path | None = setting(None, "where the run's dataset lies now; default: where it lay")
    native: bool = setting(False, "recipes run through the GPU's low-bit kernels, not simulated")
    device: Device = setting("auto", "where the networks run")


class Result(contract.Result):
    """What was measured: a row for each recipe and baseline, as in the table."""

    rows: list[dict[str, Any]]
    leak_line: str
    simulated_subject: bool
    table: str
    report: str
    done_before: bool
    warnings: tuple[str, ...] = ()

    def tables(self) -> list[Table]:
        """Return scores with their intervals, the leak check, then warnings."""
        said = {
            "bit-widths": "; ".join(
                dict.fromkeys(
                    str(row["arithmetic"])
                    for row in self.rows
                    if row["arithmetic"] not in (None, "full precision")
                )
            ),
            "subject": "simulated" if self.simulated_subject else "measured",
            "leaks": self.leak_line,
        }
        done = {"done before": True} if self.done_before else {}
        rows = [_shown(row) for row in self.rows]
        empty = {name for name in (*_FIRST, *_THEN) if all(row[name] is None for row in rows)}
        shown = [{name: value for name, value in row.items() if name not in empty} for row in rows]
        return [Table(shown), record(said | done), *warned(self.warnings)]

    def files(self) -> dict[str, str]:
        """Return table and page."""
        return {"table": self.table, "report": self.report}


_FIRST = ("two_way_feature", "two_way_feature_minus_fp")
_THEN = ("pixcorr", "ssim", "paired_psnr_to_fp")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a line of a terminal, what matters most first: what does not fit is left out from the right."""
    size = {
        "MB": None if row["bytes"] is None else round(row["bytes"] / 1e6, 2),
        "bits a weight": row["weight_bits"],
        "bits of an input": row["activation_bits"],
    }
    first, then = ({name: _score(row, name) for name in names} for names in (_FIRST, _THEN))
    return {"recipe": row["recipe"], **first, **size, **then}


def _score(row: dict[str, Any], name: str) -> str | None:
    value, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    digits = 1 if "psnr" in name else 3
    return None if value is None else f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def names(settings: Settings) -> None:
    """Refuse what is no trained run, and unknown recipes; needs no torch."""
    _named(settings)


def run(settings: Settings, context: Context) -> Result:
    """Calibrate each recipe on the run's decoder, decode the run's test pictures again, and compare.

    Every finished recipe is kept: stopped and started again, the job goes on, and more recipes can be added
    to the same folder later.

    Raises
    ------
    InputError
        The folder is no run, or has no pictures; a recipe is unknown, cannot run on the run's denoiser or is
        given twice; ``out`` was made from another run.
    MissingDataError
        The run was never trained.
    """
    trained, recipes = _checked(settings)
    return _measure(settings, trained, recipes, context)


def dry_run(settings: Settings) -> Foreseen:
    """Check everything and say what each recipe would cost: seconds of calibrating, for one CPU core."""
    trained, recipes = _checked(settings)
    rows = []
    for recipe in recipes:
        assert recipe.plan is not None  # only full precision has none
        share = recipe.plan.macs_share()
        size, seconds = recipe.plan.bytes_after / 1e6, recipe.plan.seconds
        row: dict[str, Any] = {"recipe": recipe.name, "format": max(share, key=lambda name: share[name])}
        row |= {"MB": round(size, 2), "seconds": round(seconds), "calibrates": recipe.calibrates}
        rows.append(row | {"trains": str(recipe.plan.training or "no")})
    facts = {"would write": str(settings.out), "denoiser": trained.config.denoiser}
    return Foreseen(facts=facts | {"sampler": _sampler(trained.config)}, rows=tuple(rows))


def _named(settings: Settings) -> tuple[TrainedRun, list[Recipe]]:
    """Return the run, and the recipes that were named; needs no torch."""
    from lab.compare.recipes import allocations
    from lab.decoding.trained import TrainedRun
    from lab.jobs.checks import NO_RECIPE
    from lab.models.preflight import check_run_folder
    from quant.recipes import expand

    trained = TrainedRun.open(settings.folder, settings.root)
    check_run_folder(settings.out, ("run", "weights"))
    if NO_RECIPE in settings.recipes:
        raise InputError("recipe 'none' is full precision, which is always measured; leave it out")
    known = allocations(trained.config.denoiser)
    return trained, expand(settings.recipes, names=known) if settings.recipes else []


def _checked(settings: Settings) -> tuple[TrainedRun, list[DecoderRecipe]]:
    trained, chosen = _named(settings)
    from lab import zoo
    from lab.decoding.bits import DEFAULTS
    from lab.decoding.conditions import refuse_without_sampling
    from lab.jobs.checks import natively, plan_recipe
    from quant.recipes import expand

    denoiser = trained.config.denoiser
    chosen = chosen or expand(DEFAULTS[denoiser])
    refuse_without_sampling(trained.config, chosen[0].name)
    limits = (settings.training_minutes, settings.device, zoo.load(denoiser))
    planned = [plan_recipe(recipe, denoiser, *limits) for recipe in chosen]
    return trained, [natively(recipe, settings.native, settings.device) for recipe in planned]


def _measure(
    settings: Settings, trained: TrainedRun, recipes: list[DecoderRecipe], context: Context
) -> Result:
    from lab.decoding import same_data
    from lab.decoding.bits import ledger_facts, score_rows, to_csv
    from lab.decoding.conditions import find_conditions
    from lab.decoding.data import open_subjects
    from lab.decoding.encoder.correlation import brain_correlation
    from lab.decoding.recipes import FULL, DecoderRecipe, decoded, ridge_through_decoder, weights_of
    from lab.decoding.scores import networks_for, scorers_for
    from lab.files import write_json, write_npz, write_text
    from lab.models.devices import choose_device
    from lab.report.bits import BitsData, write_page
    from lab.runs.folder import NOT_TAKEN, Run, config_hash
    from lab.runs.older import complete

    config, device = trained.config, choose_device(settings.device)
    data = open_subjects(config.model_copy(update={"train_on": "one"}), context.progress)
    same_data.check(settings.folder, data.subject)
    if data.subject.stimuli is None:
        raise InputError(f"{settings.folder} has no pictures of what was shown; give a run with pictures")
    lay = trained.config.model_copy(update={"root": trained.lay})  # moved data are the same data
    claim = {"run": lay.model_dump(mode="json"), "weights": weights_of(config.denoiser)}
    defaults = {"run": complete(type(config), {})}
    with Run.open(settings.out, claim, defaults, note=NOT_TAKEN) as folder:
        same_data.claim(settings.out, data.marks)
        worked: list[str] = []
        step = trained.step(_counted(folder, worked))
        given = find_conditions(step, config, data.subject, trained.network, device, context.progress)
        pictures, facts = {}, {}
        for recipe in [DecoderRecipe(FULL), *recipes]:
            key = "full" if recipe.name == FULL else _key(recipe)
            drawn, found = decoded(step, key, config, recipe, given, device, context.progress, context.solved)
            name = recipe.name if recipe.name != FULL else "full precision"
            pictures[name], facts[name] = drawn, ledger_facts(found)
            folder.log("recipe", name=recipe.name, bytes=facts[name]["bytes"])
        context.progress(0, 1, "scoring")
        linear = ridge_through_decoder(step, config, given, device, context.progress)
        sets = _sets(pictures, given.ridge, linear, given.mean_image)
        networks = networks_for(given.truth)
        more = scorers_for(
            given.truth, brain_correlation(step, data.subject, device, context.progress, config.voxel_encoder)
        )
        each: dict[str, dict[str, list[float]]] = {}
        rows = score_rows(given.truth, sets, facts, networks, config.bootstrap, config.seed, more, each)
        about = {
            **{key: data.about[key] for key in ("dataset", "subject", "simulated")},
            **trained.leaks(data.about),
            "run": str(settings.folder),
            "run_hash": config_hash(lay),
            "n_test": len(given.truth),
            "n_train": int((data.subject.split == "train").sum()),
            "noise_seeds": config.noise_seeds,
            "denoiser": config.denoiser,
            "sampler": _sampler(config),
            "left_out": len(given.left_out_tokens),
            "structure": given.from_start,
            "terms": data.about.get("terms"),
            "recipes": [recipe.name for recipe in recipes],
            "seed": config.seed,
            "two_way_feature": "EfficientNet-Lite0, head" if networks else None,
        }
        table, page = settings.out / "bits.csv", settings.out / "report.html"
        result = {"about": about, "rows": rows, "by_picture": each}
        same = (settings.out / "bits.json").is_file() and page.is_file() and not worked
        write_text(table, to_csv(rows))
        shown = {"stimulus": given.truth, **{name: own[0] for name, own in sets.items()}}
        write_npz(settings.out / "arrays.npz", {array_name(name): own for name, own in shown.items()})
        write_page(BitsData(about, rows, shown), settings.out)
        write_json(settings.out / "bits.json", result)
        folder.finish()
    return Result(
        rows=rows,
        leak_line=about["leak_line"],
        simulated_subject=bool(about["simulated"]),
        table=str(table),
        report=str(page),
        done_before=same,
        warnings=tuple(data.about["warnings"]),
    )


def _counted(folder: Any, worked: list[str]) -> Any:
    """Return the folder's ``step``, which notes the names of what had to be computed."""

    def counted(name: str, compute: Any) -> Any:
        def noted() -> Any:
            if not worked:
                folder.reopen()
            worked.append(name)
            return compute()

        return folder.step(name, noted)

    return counted


def _sets(
    pictures: dict[str, list[np.ndarray]], ridge: np.ndarray, linear: list[np.ndarray], mean: np.ndarray
) -> dict[str, list[np.ndarray]]:
    """Put baselines beside the recipes: full precision, with other noise; linear ones and mean image last."""
    from lab.decoding.bits import FULL_PRECISION, MEAN, OTHER_NOISE, RIDGE, RIDGE_TOKENS

    full = pictures[FULL_PRECISION]
    sets = {FULL_PRECISION: full}
    if len(full) > 1:
        sets[OTHER_NOISE] = [*full[1:], full[0]]
    return sets | pictures | {RIDGE: [ridge], RIDGE_TOKENS: linear, MEAN: [mean]}


def _key(recipe: DecoderRecipe) -> str:
    """Name a recipe's steps: readable, and another one for other settings (a preset's file may be edited)."""
    from lab.runs.folder import config_hash
    from quant import recipes

    _, method, config = recipes.resolve(recipe.content)  # type: ignore[arg-type]
    mark = config_hash({"method": method.name, "config": config.model_dump(mode="json")})
    return f"{array_name(recipe.name)}.{mark}" + (".native" if recipe.native else "")


def array_name(name: str) -> str:
    """Name under which a set of pictures lies in ``arrays.npz``, and in file names."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)


def _sampler(config: Any) -> str:
    from lab.decoding.drawing import settings_of

    sampler = settings_of(config)
    steps = f"{sampler.steps} Euler step{'s' if sampler.steps > 1 else ''} from strength {sampler.strength:g}"
    each = "one sample each" if config.n_samples == 1 else f"{config.n_samples} samples averaged"
    return f"{steps}, guidance {sampler.guidance:g}, {each}"
