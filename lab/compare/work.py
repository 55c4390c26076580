"""The loop of a comparison: seeds, recipes, gates; every finished part is on disk at once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

import quant
from lab.compare import gates
from lab.compare.bench import Bench
from lab.compare.claims import Claims
from lab.compare.cost import costs, full_costs
from lab.compare.measuring import Part, Reference, measure, null_part, reference
from lab.compare.memory import PeakMemory
from lab.compare.recipes import FULL, OTHER_SEED
from lab.errors import one_line
from lab.progress import Progress
from lab.runs.folder import Run, config_hash
from quant.recipes import Recipe

FINE = 1000
"""Progress counts thousandths of a part, so that one long calibration moves the bar as well."""
GATE_TICKS = 9
Calibrator = Callable[[Recipe], torch.device]
"""Device that calibrates a recipe."""


@dataclass
class Work:
    """The loop over seeds and recipes, and its progress."""

    bench: Bench
    run: Run
    recipes: Sequence[Recipe]
    with_gates: bool
    progress: Progress
    calibrate_on: Calibrator | None = None
    claims: Claims = field(default_factory=Claims)

    def __post_init__(self) -> None:
        self.parts: list[Part] = []
        self.gates: list[dict[str, Any]] = []
        self.done = 0
        seeds = self.bench.settings.seeds
        self.total = seeds * (len(self.recipes) + 2) + (GATE_TICKS if self.with_gates else 0)

    def all(self) -> list[dict[str, Any]]:
        """Measure everything that is not on disk yet and not another process's; return what could not be."""
        failed = []
        for seed in range(self.bench.settings.seeds):
            self.reference: Reference | None = None
            if self.claims.take(f"full.seed-{seed}"):
                self.full(seed)
            else:
                self.done += 2 + (GATE_TICKS if self.with_gates and seed == 0 else 0)
            for recipe in self.claims.order(self.recipes):
                self.tick(f"{recipe.name}, seed {seed}")
                if not self.claims.take(part_name(recipe, seed)):
                    continue
                reason = self.recipe(recipe, seed)
                if reason:
                    failed.append({"recipe": recipe.name, "seed": seed, "reason": reason})
        self.progress(self.total * FINE, self.total * FINE, "compared")
        return failed

    def full(self, seed: int) -> None:
        """Full precision, its null, and at the first seed the gates."""
        self.tick(f"full precision, seed {seed}")
        costs = full_costs(self.bench.model)
        self.step(
            f"full.seed-{seed}", lambda: measure(self.bench, self.bench.model, FULL, self.ref(seed), costs)
        )
        self.tick(f"null, seed {seed}")
        null = self.step(f"null.seed-{seed}", lambda: null_part(self.bench, OTHER_SEED, self.ref(seed)))
        if seed == 0 and self.with_gates:

            def judged() -> dict[str, Any]:
                found = gates.run_gates(self.bench, self.ref(0), null, self.tick)
                return {"gates": [gate.to_dict() for gate in found]}

            before = self.done
            self.gates = self.run.step("gates", judged)["gates"]
            self.done = before + GATE_TICKS

    def recipe(self, recipe: Recipe, seed: int) -> str:
        """Measure one recipe at one seed; return why it could not be, or nothing."""
        try:
            self.step(part_name(recipe, seed), lambda: self.quantized(recipe, seed))
        except Exception as error:  # one recipe must not end the others; it is listed as failed
            self.run.log("failed", recipe=recipe.name, seed=seed, error=repr(error)[:500])
            return f"{type(error).__name__}: {one_line(error)[:300]}"
        return ""

    def quantized(self, recipe: Recipe, seed: int) -> Part:
        """Calibrate a copy by a recipe and measure it."""
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
        taken = {
            "method": recipe.method,
            "policy": recipe.policy,
            "calibrate_seconds": seconds,
            "calibrate_peak_bytes": memory.bytes,
            "calibrate_peak_how": memory.how,
            "calibrate_on": str(where),
        }
        model.to(self.bench.device)
        return measure(self.bench, model, recipe.name, self.ref(seed), {**costs(ledger), **taken})

    def step(self, name: str, make: Callable[[], Part]) -> Part:
        """Return a part, from disk or made now."""
        made = Part.from_step(self.run.step(name, lambda: make().to_step()))
        self.parts.append(made)
        return made

    def ref(self, seed: int) -> Reference:
        """Return the full-precision reference of a seed, made when the first part needs it."""
        if self.reference is None:
            self.reference = reference(self.bench, seed)
        return self.reference

    def tick(self, what: str) -> None:
        """Begin the next part."""
        self.what = what
        self.progress(self.done * FINE, self.total * FINE, what)
        self.done += 1

    def inner(self, done: int, total: int, what: str) -> None:
        """Progress inside one calibration, whatever it counts: never more than one part."""
        share = min(1.0, done / total) if total else 0.0
        self.progress((self.done - 1) * FINE + int(share * FINE * 0.9), self.total * FINE, self.what)


def part_name(recipe: Recipe, seed: int) -> str:
    """File name of a recipe's part; another config under the same name is another part."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", recipe.name)[:80]
    return f"{slug}.{config_hash(recipe.config())[:8]}.seed-{seed}"
