"""Bits by integer programming: the best total score under a budget, proven, with HiGHS through scipy."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from quant.errors import InputError

Choice = Any
"""Any hashable: bits, or a pair of them."""


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
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    start = time.perf_counter()
    pairs = [(name, choice) for name in scores for choice in scores[name]]
    if not pairs:
        raise InputError("nothing to allocate: the score table has no layers")
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
    rows = {name: index for index, name in enumerate(scores)}
    picks = csr_matrix((np.ones(len(pairs)), ([rows[name] for name, _ in pairs], np.arange(len(pairs)))))
    # HiGHS decides feasibility to 1e-6: costs are scaled so that the budget is 1 or the unit it came in
    scale = 1.0 / max(1.0, float(np.abs(price).max()))
    lower = -np.inf if at_least is None else at_least * scale
    found = milp(
        -gain,
        constraints=[
            LinearConstraint(picks, 1, 1),
            LinearConstraint(price[None] * scale, lower, budget * scale),
        ],
        integrality=np.ones(len(pairs)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0, "time_limit": time_limit},
    )
    if found.x is None:
        raise InputError(
            f"no allocation was found between {at_least} and {budget:,.6g} {unit} ({found.message}): "
            "widen the band or raise the time limit"
        )
    if found.status != 0:
        raise InputError(f"the integer program was not solved in {time_limit:g} s: raise the time limit")
    taken = [pair for pair, x in zip(pairs, found.x, strict=True) if x > 0.5]
    cost = float(sum(costs[name][choice] for name, choice in taken))
    score = float(sum(scores[name][choice] for name, choice in taken))
    bound = -float(found.mip_dual_bound)
    return Allocation(dict(taken), score, bound, cost, float(budget), time.perf_counter() - start)


def pareto_front(
    scores: Mapping[str, Mapping[Choice, float]],
    costs: Mapping[str, Mapping[Choice, float]],
    budgets: Sequence[float],
    *,
    unit: str = "bytes",
) -> list[Allocation]:
    """Best allocation for each budget, cheapest first, without those that a cheaper one equals or beats.

    Budgets that no allocation meets are left out; at least one has to be met.

    Raises
    ------
    InputError
        None is.
    """
    cheapest = sum(min(costs[name].values()) for name in scores)
    possible = sorted({float(b) for b in budgets if b >= cheapest})
    if not possible:
        raise InputError(
            f"none of {len(budgets)} budgets can be met: the cheapest allocation takes {cheapest:,.6g} {unit}"
        )
    front: list[Allocation] = []
    for budget in possible:
        found = allocate(scores, costs, budget, unit=unit)
        if not front or found.score > front[-1].score:
            front.append(found)
    return front
