"""Job behind ``brainlab allocate``: bits layer by layer under a byte budget, as presets of mixdq."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Device, Foreseen, Numbers, Seed, Table, setting
from lab.jobs.models import compare
from lab.jobs.models.plan import OfModel, names
from lab.jobs.spelling import as_command
from lab.models.devices import choose_device
from lab.models.preflight import check_loose_folder, check_recording
from quant import recipes
from quant.about import versions

__all__ = ["Result", "Settings", "dry_run", "names", "run"]


class Settings(OfModel):
    """Give weight bits to layers by an integer program (MixDQ).

    Keeps the bytes of uniform bits. Writes one preset a budget; compare them with:
    brainlab compare MODEL --recipes FILE.yaml,...
    """

    out: Path = setting(..., "folder for the table and the presets", short="-o")
    recipe: str = setting("mixdq-w4a8-common", "recipe of mixdq without a table", short="-r")
    bits: Numbers = setting((3, 4, 6), "budgets: the bytes of uniform bits", unit="bits")
    choices: Numbers = setting((2, 3, 4, 5, 6, 8), "weight bits to choose from", unit="bits")
    metric: Literal["nmse", "sqnr_db"] = setting(
        "nmse", "what is summed over layers: noise power, or the paper's decibels"
    )
    split: bool = setting(
        False,
        "divide each budget between layers of content (cross-attention, feed-forward; judged by the SSIM of "
        "sampled pictures) and of quality, as the paper does: of ten divisions the one with least error",
    )
    samples: int = setting(4, "recorded samples to measure on", ge=1, le=1000)
    timesteps: int = setting(4, "timesteps of them", ge=1, le=1000)
    recording: Path | None = setting(None, "folder of recorded sampling; shipped denoisers make theirs")
    device: Device = setting("auto", "where the model runs")
    seed: Seed = setting(0, "fixes everything random")


class Result(contract.Result):
    """A row for each budget.

    Bytes, error uniform and allocated as predicted by the sum, gap to the dual bound, seconds, and how many
    layers have each number of bits.
    """

    model: str
    recipe: str
    quant: dict[str, str]
    rows: list[dict[str, Any]]
    out: str
    part: str | None = None
    recording: Path | None = None
    sampling: dict[str, Any] = Field(default_factory=dict)
    """What a comparison with a given recording has to say: its steps, guidance and number of conditions."""

    def tables(self) -> list[Table]:
        """Return the rows with sizes in MB."""
        rows = []
        for row in self.rows:
            sizes = {"MB": row["bytes"] / 1e6, "budget, MB": row["budget_bytes"] / 1e6}
            hidden = ("preset", "bytes", "budget_bytes")
            rows.append(
                {"preset": row["preset"], **sizes, **{k: v for k, v in row.items() if k not in hidden}}
            )
        return [Table(rows)]

    def files(self) -> dict[str, str]:
        """Return the folder of the presets."""
        return {"presets": self.out}

    def next_step(self) -> str:
        """Return how they are compared."""
        files = tuple(f"{self.out}/{row['preset']}.yaml" for row in self.rows)
        asked = compare.Settings(
            model=self.model, recipes=files, part=self.part, recording=self.recording, **self.sampling
        )  # fmt: skip
        return as_command("compare", asked)


def run(settings: Settings, context: Context) -> Result:
    """Measure each layer at each number of bits, then give bits to layers at the bytes of uniform bits.

    ``out`` gets ``sensitivity.json`` (continued if begun) and ``mixdq-wB-budget.yaml`` for each budget,
    which every command takes in place of a preset's name.

    Raises
    ------
    InputError
        The recipe is not mixdq's or has a table; a budget that is not among the choices.
    MissingDataError
        No recording for a model that is not shipped.
    """
    from lab.models.opening import open_model
    from lab.models.preflight import open_recording
    from quant.methods.mixdq import search

    config, device = _check(settings)
    model, out, choices, metric = settings.model, settings.out, settings.choices, settings.metric
    module = open_model(model, settings.part).to(device)
    store = open_recording(model, settings.recording, device=device, progress=context.progress)
    costs = search.byte_costs(module, config, choices)
    names = {name for name in costs if settings.split and search.is_content(name)}
    if settings.split and not names:
        raise InputError(
            f"--split: no layer has a name of content ({', '.join(search.CONTENT)}); leave --split away"
        )
    out.mkdir(parents=True, exist_ok=True)
    probes = _probes(settings, store)
    table = search.measure(
        module, config, store, choices=choices, path=out / "sensitivity.json", probes=probes,
        seed=settings.seed, progress=context.progress,
    )  # fmt: skip
    scores = search.scores(table, metric)
    content = {n: s for n, s in search.scores(table, "ssim").items() if n in names} if names else {}
    quality = {name: score for name, score in scores.items() if name not in content}
    rows = []
    for bits in settings.bits:
        context.check()
        budget = sum(cost[bits] for cost in costs.values())
        candidates = search.decoupled(content, quality, costs, budget)
        configs = [search.with_weights(config, c.choices) for c in candidates]
        best = 0
        if len(configs) > 1:
            errors = search.errors(
                module, configs, store, probes[0], seed=settings.seed, progress=context.progress
            )
            best = errors.index(min(errors))
        found = candidates[best]
        name = f"mixdq-w{bits}-budget"
        search.save_preset(
            out / f"{name}.yaml",
            configs[best],
            f"weight bits allocated to {model}'s layers at the bytes of uniform {bits}-bit weights",
            recipes.parse(settings.recipe).policy,
        )
        rows.append({
            "preset": name, "budget_bytes": budget, "bytes": found.cost,
            f"{metric}_uniform": abs(sum(s[bits] for s in scores.values())),
            f"{metric}_allocated": abs(sum(scores[n][b] for n, b in found.choices.items())),
            "gap": max(p.gap for p in found.parts), "seconds": round(sum(p.seconds for p in found.parts), 3),
            **({"content_over_quality": found.k} if settings.split else {}),
            "layers_by_bits": {str(b): list(found.choices.values()).count(b) for b in choices},
        })  # fmt: skip
    return Result(
        model=model, recipe=settings.recipe, quant=versions(), rows=rows, out=str(out), part=settings.part,
        recording=settings.recording, sampling={} if settings.recording is None else _sampling(model, store),
    )  # fmt: skip


def _sampling(model: str, store: Any) -> dict[str, Any]:
    from lab import zoo

    made, most = store.settings, compare.Settings.model_fields["n"].default
    limited = model not in zoo.DENOISERS and made["conditions"] is not None
    few = {"n": max(4, min(most, len(store.keys("evaluate"))))} if limited else {}
    return {"steps": made["n_steps"], "guidance": made["guidance"], **few}


def _probes(settings: Settings, store: Any) -> list[Any]:
    from lab.zoo.recordings import recorded_scheduler
    from quant.recordings.repeat import Sampler
    from quant.sensitivity.probes import FinalSample, NoisePrediction

    probes: list[Any] = [NoisePrediction(store, settings.samples, settings.timesteps)]
    if settings.split:
        sampler = Sampler(store, recorded_scheduler(store), store.null_condition)
        probes.append(FinalSample(sampler, settings.samples, settings.timesteps))
    return probes


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be measured."""
    _, device = _check(settings)
    presets = [f"{settings.out}/mixdq-w{bits}-budget.yaml" for bits in settings.bits]
    return Foreseen(facts={"would write": presets, "choices": list(settings.choices), "device": device})


def _check(settings: Settings) -> tuple[Any, str]:
    """Refuse what cannot work before a model is opened; return mixdq's config and the device."""
    config = _config(settings.recipe, settings.bits, settings.choices)
    check_loose_folder(settings.out)
    check_recording(settings.model, settings.recording)
    return config, choose_device(settings.device)


def _config(recipe: str, budgets: Sequence[int], choices: Sequence[int]) -> Any:
    _, method, config = recipes.resolve(recipe)
    if method.name != "mixdq" or getattr(config, "table", None):
        raise InputError(f"{recipe} cannot be allocated: give a recipe of mixdq without a table")
    wrong = [b for b in (*budgets, *choices) if not 2 <= b <= 8]
    if wrong or not budgets or not choices:
        raise InputError(f"bits must be numbers from 2 to 8, got {wrong[0] if wrong else 'none'}")
    missing = [b for b in budgets if b not in choices]
    if missing:
        raise InputError(f"--bits {missing[0]}: a budget is that of uniform bits among --choices")
    return config
