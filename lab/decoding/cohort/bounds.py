"""What no decoder of a study can do better than linearly: without noise, or with trials without end."""

from __future__ import annotations

import torch

from lab.decoding.cohort.subjects import REPEATS, Cohort, Member

DRAWS = 8
PENALTIES = tuple(10.0**k for k in range(-5, 1))
"""Candidates, times the number of examples."""
_LEFT_OUT = 10  # one picture in so many chooses the penalty
NOISELESS, ENDLESS = "noise-free voxels, linear", "trials without end, linear"


def bound(what: str, member: Member, cohort: Cohort) -> torch.Tensor:
    """Return flat tokens (n_test, n_values) of the test pictures from the best linear read-out.

    It is fitted on every picture that is not tested: on answers without noise (`NOISELESS`), or on `DRAWS`
    means of `REPEATS` presentations of each, with noise as in the test (`ENDLESS`).
    """
    tokens, clear = cohort.seen.tokens, what == NOISELESS
    device = tokens.device
    free = torch.arange(int(cohort.tested[0]), device=device)
    left = torch.arange(len(free), device=device) % _LEFT_OUT == 0
    noise = torch.Generator(device=device).manual_seed(member.scanner.seed + 1)
    mean, spread = tokens[free].mean(0), tokens[free].std(0) + 1e-6
    draws = 1 if clear else DRAWS

    def look(index: torch.Tensor) -> torch.Tensor:
        raw = member.scanner.clear(index) if clear else member.scanner.look(index, REPEATS, noise)
        return ((raw - member.mean) / member.scale).double()

    def products(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        grams, goals = 0.0, 0.0
        for _ in range(draws):
            x = look(index)
            grams, goals = grams + x.T @ x, goals + x.T @ (tokens[index] - mean).double()
        return grams, goals  # type: ignore[return-value]

    def solve(gram: torch.Tensor, goal: torch.Tensor, penalty: float, n: int) -> torch.Tensor:
        ridge = torch.eye(len(gram), dtype=gram.dtype, device=device) * (penalty * n * draws)
        return torch.cholesky_solve(goal, torch.linalg.cholesky(gram + ridge))

    inside = free[~left]
    parts, seen = products(inside), look(free[left])
    goal = (tokens[free[left]] - mean) / spread
    errors = []
    for penalty in PENALTIES:
        guess = (seen @ solve(*parts, penalty, len(inside))).float() / spread
        errors.append(float((guess - goal).square().mean()))
    best = PENALTIES[errors.index(min(errors))]
    x = member.clear_test if clear else member.test
    return (x.double() @ solve(*products(free), best, len(free))).float() + mean
