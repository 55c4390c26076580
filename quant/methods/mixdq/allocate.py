"""Bits by integer programming: the best total score under a budget, proven, with HiGHS through scipy."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from quant.errors import InputError

Choice = Any
"""Any hashable: bits, or a pair of them."""
_TOLERANCE = 1e-6
"""Of HiGHS, for rows, integrality and objective; absolute."""
_LARGE = 1e5
"""What the largest cost and the sum of regrets are scaled to, to stand far above that."""
_PROOF = 1e-6
"""Part of the sum of regrets that may separate a solution from its dual bound."""


@dataclass(frozen=True)
class Allocation:
    """An allocation and the proof of how good it is.

    Attributes
    ----------
    choices : dict
        Choice by layer name.
    score : float
        Total; no allocation within the budget has a larger one than `bound`.
    bound : float
        Dual bound of the integer program.
    cost : float
    budget : float
    seconds : float
    """

    choices: dict[str, Choice]
    score: float
    bound: float
    cost: float
    budget: float
    seconds: float

    @property
    def gap(self) -> float:
        """Relative distance to the dual bound."""
        return abs(self.bound - self.score) / max(1e-12, abs(self.score))


def allocate(
    scores: Mapping[str, Mapping[Choice, float]],
    costs: Mapping[str, Mapping[Choice, float]],
    budget: float,
    *,
    at_least: float | None = None,
    unit: str = "bytes",
    time_limit: float = 60.0,
) -> Allocation:
    """Maximize ``sum_i S_i(b_i)`` with one choice b_i for each layer and ``sum_i C_i(b_i) <= budget``.

    Parameters
    ----------
    scores, costs : mapping of layer name to mapping of choice to number
        Larger scores are better. Both have the same layers and choices.
    budget : float
        Of the total cost.
    at_least : float, optional
        Lower edge of a budget band; the paper uses one of 0.02 bits either way, which costs monotonicity.
    unit : str
        Of the costs, for messages.
    time_limit : float
        Seconds.

    Returns
    -------
    Allocation

    Raises
    ------
    InputError
        No allocation meets the budget, a score is not finite, or the time limit came before the proof.
    """
    start = time.perf_counter()
    pairs = [(name, choice) for name in scores for choice in scores[name]]
    if not pairs:
        raise InputError("nothing to allocate: the score table has no layers")
    absent = next((pair for pair in pairs if pair[1] not in costs.get(pair[0], {})), None)
    if absent is not None:
        raise InputError(f"layer {absent[0]!r} has a score at {absent[1]} and no cost: give both")
    if math.isnan(budget):
        raise InputError(f"the budget is {budget}: give a number of {unit}")
    gain = np.array([scores[name][choice] for name, choice in pairs], dtype=float)
    price = np.array([costs[name][choice] for name, choice in pairs], dtype=float)
    if not (np.isfinite(gain).all() and np.isfinite(price).all()):
        bad = pairs[int(np.argmin(np.isfinite(gain) & np.isfinite(price)))]
        raise InputError(f"score or cost of layer {bad[0]!r} at {bad[1]} is not finite: measure it again")
    cheapest = sum(min(costs[name][c] for c in scores[name]) for name in scores)
    if cheapest > budget:
        raise InputError(
            f"no allocation meets the budget of {budget:,.6g} {unit}: the cheapest takes {cheapest:,.6g}; "
            "raise the budget or allow fewer bits"
        )
    regret = np.array([max(scores[name].values()) - scores[name][choice] for name, choice in pairs])
    taken, bound = _least_regret(pairs, regret, price, budget, at_least, unit, start + time_limit)
    cost = float(sum(costs[name][choice] for name, choice in taken))
    score = float(sum(scores[name][choice] for name, choice in taken))
    top = sum(max(options.values()) for options in scores.values())
    return Allocation(dict(taken), score, top - bound, cost, float(budget), time.perf_counter() - start)


def _least_regret(
    pairs: Sequence[tuple[str, Choice]], regret: np.ndarray, price: np.ndarray, budget: float,
    at_least: float | None, unit: str, until: float,
) -> tuple[list[tuple[str, Choice]], float]:  # fmt: skip
    """Minimize the sum of ``max_b S_i(b) - S_i(b_i)``; the choices and the dual bound of that sum.

    HiGHS stops at absolute tolerances of about 1e-6, so the objective has to be large where it is decided.
    Regrets are not negative: a choice whose own is above a known solution's sum is in no better one. It is
    left out, the rest is scaled to that sum, and solved again until the scale stays.
    """
    total = float(regret.max())
    while True:
        kept = regret <= total * (1 + 1e-9)
        taken, bound = _solve(pairs, regret, kept, total or 1.0, price, budget, at_least, unit, until)
        found = float(regret[taken].sum())
        if found == 0.0 or found >= 0.5 * total:
            break
        total = found
    if found == 0.0:  # every layer has its best choice; the solver's bound may lie below by its tolerance
        return [pairs[index] for index in taken], 0.0
    if found - bound > _PROOF * found:
        raise InputError(
            f"the integer program ended {(found - bound) / found:.2g} of its loss away from the proof: "
            "use fewer choices, or scores that differ by less"
        )
    return [pairs[index] for index in taken], min(bound, found)


def _solve(
    pairs: Sequence[tuple[str, Choice]], regret: np.ndarray, kept: np.ndarray, unit_regret: float,
    price: np.ndarray, budget: float, at_least: float | None, unit: str, until: float,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """One integer program; indices of the chosen pairs and the dual bound, in the regrets' own unit."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    rows = {name: index for index, name in enumerate(dict.fromkeys(name for name, _ in pairs))}
    picks = csr_matrix((np.ones(len(pairs)), ([rows[name] for name, _ in pairs], np.arange(len(pairs)))))
    money = _LARGE / max(1.0, float(np.abs(price).max()))
    least = -np.inf if at_least is None else at_least
    for most in (budget, budget - _TOLERANCE / money, budget - 2 * _TOLERANCE / money):
        with _quiet():
            found = milp(
                np.where(kept, regret, 0.0) * (_LARGE / unit_regret),
                constraints=[
                    LinearConstraint(picks, 1, 1),
                    LinearConstraint(price[None] * money, least * money, most * money),
                ],
                integrality=np.ones(len(pairs)),
                bounds=Bounds(0, kept.astype(float)),
                options={"mip_rel_gap": 0.0, "time_limit": max(0.0, until - time.perf_counter())},
            )
        if found.x is None and found.status != 1:
            raise InputError(
                f"no allocation was found between {at_least} and {budget:,.6g} {unit} ({found.message}): "
                "widen the band or raise the time limit"
            )
        if found.status != 0:
            raise InputError("the integer program was not solved in time: raise the time limit")
        taken = np.flatnonzero(found.x > 0.5)
        # above the budget by less than HiGHS sees: once more with that much less to spend
        if float(price[taken].sum()) <= budget * (1 + 1e-12):
            break
    return taken, float(found.mip_dual_bound) * unit_regret / _LARGE


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off stdout what HiGHS 1.8 and later print there unasked (a line for each repaired solution)."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
