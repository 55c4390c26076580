"""The loop of a comparison: seeds and recipes; every finished measurement is on disk at once."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import quant
from kernels.checkout import commit
from lab.compare.about import hardware
from lab.compare.bench import Bench, PanelSettings, open_bench
from lab.compare.cost import PeakMemory, costs, full_costs
from lab.compare.measuring import Measured, Reference, measure, measure_null, reference
from lab.compare.recipes import FULL, OTHER_SEED, Packed, expand
from lab.compare.workers import Turns
from lab.errors import InputError, one_line
from lab.progress import Progress, silent
from lab.runs.folder import Run, config_hash
from quant.plans.ledger import Ledger
from quant.recipes import Recipe

FINE = 1000
"""Progress counts thousandths of a measurement, so that one long calibration moves the bar as well."""
MIXED = "mixed"
LONG = 1.0
"""Seconds for a million weights from which a recipe waits for the quick ones."""
Calibrator = Callable[[Recipe], torch.device]
"""Device that calibrates a recipe."""


class Task(NamedTuple):
    """One measurement: a recipe (or full precision, or its null) at one seed."""

    name: str
    seed: int
    what: str
    recipe: Recipe | None


def open_work(
    model: str,
    recipes: Sequence[str],
    *,
    settings: dict[str, Any],
    device: str,
    recording: str | None = None,
    part: str | None = None,
    calibrate_on: str | None = None,
    progress: Progress = silent,
) -> tuple[Bench, list[Recipe], Calibrator | None]:
    """Open what a comparison works with, in this process: bench, recipes, and where recipes calibrate.

    Raises
    ------
    InputError
        Unknown recipe or device, more pictures than conditions.
    MissingDataError
        No recording of a model that is not shipped.
    """
    chosen = expand(recipes, model, part)
    where = calibrator(calibrate_on, device)
    at = None if recording is None else Path(recording)
    return open_bench(model, PanelSettings(**settings), device, at, part, progress), chosen, where


def calibrator(choice: str | None, device: str) -> Calibrator | None:
    """Say where each recipe is calibrated; None: on the comparison's own device.

    Raises
    ------
    InputError
        An unknown choice.
    """
    if choice is None:
        return None
    if choice not in ("cpu", "cuda", MIXED):
        raise InputError(f"--calibrate-on {choice!r}: must be cpu, cuda or {MIXED}")
    if choice != MIXED:
        return lambda recipe: torch.device(choice)
    return lambda recipe: torch.device(device if recipe.trains else "cpu")


@dataclass
class Work:
    """The loop over seeds and recipes, and its progress."""

    bench: Bench
    run: Run
    recipes: Sequence[Recipe]
    progress: Progress = silent
    calibrate_on: Calibrator | None = None
    turns: Turns = field(default_factory=Turns)

    def __post_init__(self) -> None:
        self.reference: Reference | None = None
        self.made = {"commit": commit(), "device": hardware(str(self.bench.device))}
        self.done = 0
        self.tasks: list[Task] = []
        for seed in range(self.bench.settings.seeds):
            self.tasks += [
                Task(f"full.seed-{seed}", seed, "full precision", None),
                Task(f"null.seed-{seed}", seed, "null", None),
                *(Task(step_name(r, seed), seed, r.name, r) for r in self.recipes),
            ]

    def left(self) -> int:
        """Count the measurements that are not on disk."""
        steps = self.run.path / "steps"
        return sum(not (steps / f"{task.name}.json").is_file() for task in self.tasks)

    def others(self) -> tuple[str, ...]:
        """Name the recipes that lie measured in the folder and are not of this comparison."""
        files = sorted((self.run.path / "steps").glob("*.json"))
        found = {json.loads(file.read_text(encoding="utf-8"))["values"]["recipe"] for file in files}
        return tuple(sorted(found - {r.name for r in self.recipes} - {FULL, OTHER_SEED}))

    def share(self) -> None:
        """Measure what nobody has taken yet, seed after seed.

        What takes seconds comes first, which a run that is stopped then has; then the long ones, the longest
        first, so that nobody waits at the end.
        """

        def order(task: Task) -> tuple[int, bool, float]:
            cost = task.recipe.info.seconds_per_million_weights if task.recipe else 0.0
            return task.seed, cost >= LONG, -cost if task.recipe else float("-inf")

        for task in sorted(self.tasks, key=order):
            if self.turns.take(task.name):
                self.turns.fail(task.name, self.attempt(task)[1])

    def all(self) -> tuple[list[Measured], list[dict[str, Any]]]:
        """Return all measurements, from disk or made now, and what could not be measured."""
        found, failed, self.done = [], [], 0
        for task in self.tasks:
            reason = self.turns.reason(task.name)
            one, reason = (None, reason) if reason else self.attempt(task)
            if one is not None:
                found.append(one)
            else:
                failed.append({"recipe": task.what, "seed": task.seed, "reason": reason})
        self.progress(len(self.tasks) * FINE, len(self.tasks) * FINE, "compared")
        return found, failed

    def attempt(self, task: Task) -> tuple[Measured | None, str]:
        """Make one measurement, or read it; return it, or none and why it could not be made."""
        self.what = f"{task.what}, seed {task.seed}"
        self.progress(self.done * FINE, len(self.tasks) * FINE, self.what)
        self.done += 1
        try:
            return Measured.from_step(self.run.step(task.name, lambda: self.measure(task).to_step())), ""
        except Exception as error:
            if task.recipe is None:
                raise
            # one recipe must not end the others; it is listed as failed
            self.run.log("failed", recipe=task.what, seed=task.seed, error=repr(error)[:500])
            return None, f"{type(error).__name__}: {one_line(error)[:300]}"

    def measure(self, task: Task) -> Measured:
        """Measure full precision, its null, or a quantized copy."""
        if self.reference is None or self.reference.seed != task.seed:
            self.reference = None  # two at a time would not fit beside a large model
            self.reference = reference(self.bench, task.seed)
        if task.recipe is not None:
            found = self.quantized(task.recipe, task.seed)
        elif task.name.startswith("null"):
            found = measure_null(self.bench, OTHER_SEED, self.reference)
        else:
            found = measure(self.bench, self.bench.model, FULL, self.reference, full_costs(self.bench.model))
        # a folder may hold measurements of several commits and machines
        found.numbers |= {**self.made, "when": datetime.now(UTC).isoformat(timespec="seconds")}
        return found

    def quantized(self, recipe: Recipe, seed: int) -> Measured:
        """Calibrate a copy by a recipe, or put a packed model into it, and measure it."""
        assert self.reference is not None
        if isinstance(recipe, Packed):
            model = self.bench.fresh()
            ledger, taken = recipe.load(model), {"method": recipe.method, "policy": recipe.policy}
        else:
            model, ledger, taken = self._calibrated(recipe, seed)
        model.to(self.bench.device)
        if self.bench.native:
            quant.native_(model)
        found = measure(self.bench, model, recipe.name, self.reference, {**costs(ledger), **taken})
        found.numbers["execution"] = ledger.arithmetic  # drawing says how kernels were launched
        return found

    def _calibrated(self, recipe: Recipe, seed: int) -> tuple[nn.Module, Ledger, dict[str, Any]]:
        """Quantize a copy; what it took."""
        where = self.calibrate_on(recipe) if self.calibrate_on else self.bench.device
        model = self.bench.fresh().to(where)
        store = self.bench.recording if recipe.calibrates else None
        with PeakMemory(where) as memory:
            began = time.perf_counter()
            ledger = quant.quantize_(
                model, recipe.config(), trajectories=store, seed=seed, keep_originals=False,
                progress=self.inner,
            )  # fmt: skip
            seconds = time.perf_counter() - began
        return model, ledger, {
            "method": recipe.method, "policy": recipe.policy, "calibrate_seconds": seconds,
            "calibrate_peak_bytes": memory.bytes, "calibrate_peak_how": memory.how,
            "calibrate_on": str(where),
        }  # fmt: skip

    def inner(self, done: int, total: int, what: str) -> None:
        """Progress inside one calibration, whatever it counts: never more than one measurement."""
        share = min(1.0, done / total) if total else 0.0
        now = (self.done - 1) * FINE + int(share * FINE * 0.9)
        self.progress(now, len(self.tasks) * FINE, self.what)


def step_name(recipe: Recipe, seed: int) -> str:
    """File name of a recipe's measurement; another config under the same name is another one."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", recipe.name).lstrip("-.")[:80]
    return f"{slug}.{config_hash(recipe.config())[:8]}.seed-{seed}"
