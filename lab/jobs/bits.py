"""Job behind ``brainlab brain bits``: reconstruction against bits, from one trained run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from lab.errors import InputError
from lab.jobs.contract import Context
from lab.jobs.contract import Result as BaseResult
from lab.jobs.contract import Settings as BaseSettings

if TYPE_CHECKING:
    import numpy as np

    from lab.decoding.recipes import DecoderRecipe
    from lab.decoding.trained import TrainedRun


class Settings(BaseSettings):
    """What to measure."""

    run: Path = Field(description="run folder of brain reconstruct or brain train; it is only read")
    recipes: tuple[str, ...] = Field(
        (),
        description="each PRESET, PRESET+field=value or a file; default: the best preset at 8, 6, 4, 3 bits",
    )
    out: Path = Field(Path("runs/bits"), description="folder of the table, the pictures and the page")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the networks run")

    @field_validator("recipes", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(word.strip() for word in value.split(",") if word.strip())
        return value

    @field_validator("recipes")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name in dict.fromkeys(value) if value.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]!r} is given {value.count(twice[0])} times; give each recipe once")
        return value


class Result(BaseResult):
    """What was measured."""

    rows: list[dict[str, Any]] = Field(description="a line a recipe and baseline, as in the table")
    leak_line: str = Field(description="what the leak check found")
    simulated_subject: bool = Field(description="whether nobody was measured")
    table: str = Field(description="the table, CSV")
    report: str = Field(description="the page")
    done_before: bool = Field(description="whether everything lay in the folder already")


def run(settings: Settings, context: Context) -> Result:
    """Calibrate each recipe on the run's decoder, decode the run's test pictures again, and compare.

    Nothing is trained. Every finished recipe is kept: stopped and started again, the job goes on, and more
    recipes can be added to the same folder later.

    Raises
    ------
    InputError
        The run is no run, or has no pictures; a recipe is unknown, cannot run on the run's denoiser or is
        given twice; the folder was made from another run.
    MissingDataError
        The run was never trained.
    """
    trained, recipes = _checked(settings)
    return _measure(settings, trained, recipes, context)


def foresee(settings: Settings) -> list[dict[str, Any]]:
    """Check everything that `run` does and say what each recipe would cost; changes nothing.

    Returns
    -------
    list of dict
        ``recipe``, ``format`` of most multiply-accumulates, ``megabytes`` of the decoder, and ``seconds`` of
        calibrating, estimated for one CPU core.
    """
    rows = []
    for recipe in _checked(settings)[1]:
        plan = recipe.plan
        assert plan is not None  # only full precision has none, and `_checked` refuses it
        share = plan.macs_share()
        row = {"recipe": recipe.name, "format": max(share, key=lambda name: share[name])}
        rows.append(row | {"megabytes": round(plan.bytes_after / 1e6, 2), "seconds": round(plan.seconds)})
    return rows


def _checked(settings: Settings) -> tuple[TrainedRun, list[DecoderRecipe]]:
    from lab.decoding.trained import TrainedRun
    from lab.jobs.checks import check_recipe, check_recipe_name

    trained = TrainedRun.open(settings.run)
    denoiser = trained.config.denoiser
    names = _expanded(settings.recipes, denoiser)
    for name in names:  # typing errors before torch is loaded
        check_recipe_name(name, denoiser)
    if "none" in names:
        raise InputError("recipe 'none' is full precision, which is always measured; leave it out")
    from lab.decoding.bits import DEFAULTS
    from lab.decoding.conditions import refuse_without_sampling

    names = names or list(DEFAULTS[denoiser])
    refuse_without_sampling(trained.config, names[0])
    return trained, [check_recipe(name, denoiser) for name in names]


def _expanded(words: tuple[str, ...], denoiser: str) -> list[str]:
    """Put recipes in the place of groups and wildcards, each once."""
    from lab.compare.recipes import expand, groups

    several = groups(denoiser)
    names: list[str] = []
    for word in words:
        many = word in several or "*" in word or "?" in word
        names += [recipe.name for recipe in expand(word, denoiser)] if many else [word]
    return list(dict.fromkeys(names))


def _measure(
    settings: Settings, trained: TrainedRun, recipes: list[DecoderRecipe], context: Context
) -> Result:
    from lab.decoding.bits import ledger_facts, score_rows, to_csv
    from lab.decoding.conditions import find_conditions
    from lab.decoding.data import open_subjects
    from lab.decoding.recipes import FULL, DecoderRecipe, decoded, weights_of
    from lab.decoding.scores import networks_for
    from lab.files import write_json, write_npz, write_text
    from lab.jobs.zoo import choose_device
    from lab.report.bits import BitsData, write_page
    from lab.runs.folder import Run, config_hash

    config, device = trained.config, choose_device(settings.device)
    data = open_subjects(config.model_copy(update={"train_on": "one"}), context.progress)
    if data.subject.stimuli is None:
        raise InputError(f"{settings.run} has no pictures of what was shown; give a run with pictures")
    claim = {"run": config.model_dump(mode="json"), "weights": weights_of(config.denoiser)}
    with Run.open(settings.out, claim) as folder:
        worked: list[str] = []
        step = trained.step(_counted(folder.step, worked))
        given = find_conditions(step, config, data.subject, trained.network, device, context.progress)
        pictures, facts = {}, {}
        for recipe in [DecoderRecipe(FULL), *recipes]:
            key = "full" if recipe.name == FULL else _key(recipe)
            drawn, found = decoded(step, key, config, recipe, given, device, context.progress)
            name = recipe.name if recipe.name != FULL else "full precision"
            pictures[name], facts[name] = drawn, ledger_facts(found)
            folder.log("recipe", name=recipe.name, bytes=facts[name]["bytes"])
        context.progress(0, 1, "scoring")
        sets = _sets(pictures, given.ridge, given.mean_image)
        networks = networks_for(given.truth)
        rows = score_rows(given.truth, sets, facts, networks, config.bootstrap, config.seed)
        about = {
            **{key: data.about[key] for key in ("dataset", "subject", "simulated", "leak_line", "leak")},
            "run": str(settings.run),
            "run_hash": config_hash(config),
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
        result = {"about": about, "rows": rows}
        same = (settings.out / "bits.json").is_file() and page.is_file() and not worked
        write_text(table, to_csv(rows))
        shown = {"stimulus": given.truth, **{name: own[0] for name, own in sets.items()}}
        write_npz(settings.out / "arrays.npz", {_plain(name): own for name, own in shown.items()})
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
    )


def _counted(step: Any, worked: list[str]) -> Any:
    """Return a ``step`` that notes the names of what had to be computed."""

    def counted(name: str, compute: Any) -> Any:
        def noted() -> Any:
            worked.append(name)
            return compute()

        return step(name, noted)

    return counted


def _sets(
    pictures: dict[str, list[np.ndarray]], ridge: np.ndarray, mean: np.ndarray
) -> dict[str, list[np.ndarray]]:
    """Put baselines beside the recipes: full precision first, with other noise; ridge and mean image last."""
    from lab.decoding.bits import FULL_PRECISION, MEAN, OTHER_NOISE, RIDGE

    full = pictures[FULL_PRECISION]
    sets = {FULL_PRECISION: full}
    if len(full) > 1:
        sets[OTHER_NOISE] = [*full[1:], full[0]]
    return sets | pictures | {RIDGE: [ridge], MEAN: [mean]}


def _key(recipe: DecoderRecipe) -> str:
    """Name a recipe's steps: readable, and another one for other settings (a preset's file may be edited)."""
    from lab.runs.folder import config_hash
    from quant import registry

    _, method, config = registry.resolve(recipe.content)  # type: ignore[arg-type]
    mark = config_hash({"method": method.name, "config": config.model_dump(mode="json")})
    return f"{_plain(Path(recipe.name).stem if '/' in recipe.name else recipe.name)}.{mark}"


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)


def _sampler(config: Any) -> str:
    from lab.decoding.drawing import settings_of

    sampler = settings_of(config)
    steps = f"{sampler.steps} Euler step{'s' if sampler.steps > 1 else ''} from strength {sampler.strength:g}"
    return f"{steps}, guidance {sampler.guidance:g}, {config.n_samples} samples averaged"
