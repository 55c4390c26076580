"""Job behind ``brainlab allocate``: bits layer by layer under a byte budget, as presets of mixdq."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.progress import Progress, silent

CHOICES = (2, 3, 4, 5, 6, 8)


def allocate(
    model: str,
    out: Path,
    *,
    recipe: str = "mixdq-w4a8-common",
    budgets: Sequence[int] = (3, 4, 6),
    choices: Sequence[int] = CHOICES,
    metric: str = "nmse",
    samples: int = 4,
    timesteps: int = 4,
    recording: Path | None = None,
    part: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure each layer at each number of bits, then give bits to layers at the bytes of uniform bits.

    Parameters
    ----------
    model : str
        Shipped denoiser, diffusers folder, or hub name.
    out : Path
        Folder: ``sensitivity.json`` (continued if it was begun) and ``mixdq-wB-budget.yaml`` for each budget,
        which every command takes in place of a preset's name.
    recipe : str
        Preset of mixdq without a table: formats beside the bits.
    budgets : sequence of int
        Numbers of bits; the budget is what all layers at so many bits take.
    choices : sequence of int
        Weight bits to choose from.
    metric : {"nmse", "sqnr_db"}
        What is summed over layers: noise power (recommended), or the paper's decibels.
    samples, timesteps : int
        Recorded points that layers are measured at.
    recording : Path, optional
        Made by `quant.record` with this model; a shipped denoiser records itself.
    part : str, optional
        Part of a pipeline.
    device : {"auto", "cpu", "cuda"}
    seed : int

    Returns
    -------
    dict
        ``model``, ``rows`` (one a budget: bytes, error uniform and allocated as predicted by the sum, mean
        bits, gap to the dual bound, seconds), ``out``.

    Raises
    ------
    InputError
        The recipe is not mixdq's or has a table; a budget below the fewest bits; unknown metric.
    MissingDataError
        No recording for a model that is not shipped.
    """
    import quant
    from lab.jobs.quantize import open_recording
    from lab.jobs.zoo import choose_device
    from lab.models.opening import open_model
    from lab.models.preflight import check_folder, check_recording
    from quant.methods.mixdq import search
    from quant.sensitivity.probes import NoisePrediction

    config = _config(recipe, budgets, choices, metric)
    check_folder(out)
    check_recording(model, recording)
    device = choose_device(device)
    module = open_model(model, part).to(device)
    store = open_recording(model, recording, device=device, progress=progress)
    out.mkdir(parents=True, exist_ok=True)
    table = search.measure(
        module, config, store, choices=tuple(choices), path=out / "sensitivity.json",
        probes=[NoisePrediction(store, samples, timesteps)], progress=progress,
    )  # fmt: skip
    scores, costs = search.scores(table, metric), search.byte_costs(module, config, tuple(choices))
    rows = []
    for bits in budgets:
        budget = sum(cost[bits] for cost in costs.values())
        found = search.allocate(scores, costs, budget)
        name = f"mixdq-w{bits}-budget"
        search.save_preset(
            out / f"{name}.yaml",
            search.with_weights(config, found.choices),
            f"weight bits allocated to {model}'s layers at the bytes of uniform {bits}-bit weights",
            quant.get_preset(recipe).policy,
        )
        rows.append({
            "preset": name, "budget_bytes": budget, "bytes": found.cost,
            f"{metric}_uniform": abs(sum(s[bits] for s in scores.values())),
            f"{metric}_allocated": abs(found.score), "gap": found.gap, "seconds": round(found.seconds, 3),
            "layers_by_bits": {b: list(found.choices.values()).count(b) for b in choices},
        })  # fmt: skip
    return {"model": model, "recipe": recipe, "quant": quant.api.versions(), "rows": rows, "out": str(out)}


def _config(recipe: str, budgets: Sequence[int], choices: Sequence[int], metric: str) -> Any:
    import quant

    _, method, config = quant.registry.resolve(recipe)
    if method.name != "mixdq" or getattr(config, "table", None):
        raise InputError(f"{recipe} cannot be allocated: give a recipe of mixdq without a table")
    if metric not in ("nmse", "sqnr_db"):
        raise InputError(f"--metric {metric!r}: must be nmse or sqnr_db")
    wrong = [b for b in (*budgets, *choices) if not 2 <= b <= 8]
    if wrong or not budgets or not choices:
        raise InputError(f"bits must be numbers from 2 to 8, got {wrong[0] if wrong else 'none'}")
    missing = [b for b in budgets if b not in choices]
    if missing:
        raise InputError(f"--bits {missing[0]}: a budget is that of uniform bits among --choices")
    return config
