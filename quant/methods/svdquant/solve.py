"""One weight (or a stack of weights that read one input): smoothing, branch, residual codes.

Everything is scored by the same number: the squared error of the layer's output on calibration rows, with
inputs quantized as they will be, ``|| X W^T - (Q(X/f) Q(R)^T + X down^T up^T) ||^2``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from quant.formats.grids import Params
from quant.formats.quantizer import DTYPES, Quantizer
from quant.layers.attachments import usable_factor
from quant.methods.svdquant.config import SvdQuantConfig
from quant.methods.svdquant.gptq import gptq_codes
from quant.methods.svdquant.lowrank import branch_weight, stored_branch

SHIFT = 0.171875
"""Added to the output of GELU, whose minimum is -0.16997; exact in 16 bit."""

STORED = torch.bfloat16


@dataclass
class Problem:
    """What stays fixed while one stack is solved.

    Attributes
    ----------
    weight : tensor of shape (N, K), float32
    rows : tensor of shape (n, K), float32
    absmax : tensor of shape (K,)
        Of the inputs, over all calibration data.
    rank : int
    quantizer, activation : Quantizer
    config : SvdQuantConfig
    shift : float
    """

    weight: Tensor
    rows: Tensor
    absmax: Tensor
    rank: int
    quantizer: Quantizer
    activation: Quantizer | None
    config: SvdQuantConfig
    shift: float = 0.0
    target: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.target = self.rows @ self.weight.T

    def quantized_rows(self, factor: Tensor | None) -> Tensor:
        """Return the inputs as the residual's product will see them."""
        x = self.smoothed_rows(factor)
        return x if self.activation is None else self.activation.fake(x, "linear_input")

    def smoothed_rows(self, factor: Tensor | None) -> Tensor:
        """Shifted and smoothed inputs, not quantized."""
        x = self.rows + self.shift if self.shift else self.rows
        return x if factor is None else x / factor.float()


@dataclass(frozen=True)
class Candidate:
    """One way to write the weight, and its error."""

    factor: Tensor | None
    down: Tensor | None
    up: Tensor | None
    codes: Tensor
    params: Params
    error: float
    notes: dict[str, Any] = field(default_factory=dict)
    basis: Tensor | None = None
    """Subspace of the branch, where the search for a similar one can start."""


def solve(problem: Problem) -> Candidate:
    """Search the smoothing, then alternate branch and residual, then round the residual for good."""
    factor, notes = search_smoothing(problem)
    best = iterate(problem, factor)
    if problem.config.residual == "gptq":
        best = _gptq(problem, best)
    total = float(problem.target.double().square().sum())
    relative = (best.error / total) ** 0.5 if total > 0 else 0.0
    return replace(best, notes={**notes, **best.notes, "relative_output_error": round(relative, 6)})


def smoothing_factor(absmax: Tensor, weight: Tensor, alpha: float, beta: float) -> Tensor:
    """``f_j = max|X_j|^alpha / max|W_j|^beta`` as stored; 1 where that is 0, all 1 if any is not finite.

    A channel without inputs or without weights is no reason for all to be 1; `usable_factor` bounds the rest.
    """
    factor = absmax.float() ** alpha / weight.abs().amax(0).float() ** beta
    factor = factor.to(STORED)
    if not bool(torch.isfinite(factor[(absmax > 0) & (weight.abs().amax(0) > 0)]).all()):
        return torch.ones_like(factor)
    return usable_factor(factor)


def smoothing_grid(points: int) -> list[tuple[float, float]]:
    """Identity, then (alpha, 0) and (alpha, 1 - alpha) for every inner multiple of 1 / points."""
    inner = [index / points for index in range(1, points)]
    return [(0.0, 0.0), *[(a, 0.0) for a in inner], *[(a, 1.0 - a) for a in inner]]


def search_smoothing(problem: Problem) -> tuple[Tensor | None, dict[str, Any]]:
    """Best of the grid by output error with a one-shot branch and rounded residual."""
    width = problem.weight.shape[1]
    ones = torch.ones(width, dtype=STORED, device=problem.weight.device)
    if problem.config.smooth == "none":
        return (ones if problem.shift else None), {}
    best, least, chosen, basis = ones, float("inf"), (0.0, 0.0), None
    for alpha, beta in smoothing_grid(problem.config.smooth_points):
        plain = alpha == 0.0 and beta == 0.0
        factor = ones if plain else smoothing_factor(problem.absmax, problem.weight, alpha, beta)
        found = attempt(problem, factor, problem.quantized_rows(factor), None, refine=False, start=basis)
        basis = found.basis
        if found.error < least:
            best, least, chosen = factor, found.error, (alpha, beta)
    return best, {"alpha": round(chosen[0], 4), "beta": round(chosen[1], 4)}


def attempt(
    problem: Problem, factor: Tensor | None, x: Tensor, previous: Tensor | None, refine: bool = True,
    start: Tensor | None = None,
) -> Candidate:  # fmt: skip
    """Branch of what the previous residual codes leave over, residual by rounding, and the error of both.

    Parameters
    ----------
    problem : Problem
    factor : tensor of shape (K,) or None
    x : tensor of shape (n, K)
        ``problem.quantized_rows(factor)``.
    previous : tensor of shape (N, K) or None
        Decoded residual of the round before; None at the start.
    refine : bool
        Search coarse scales; False takes those of the largest group.
    start : tensor of shape (K, q), optional
        Subspace of a similar problem's branch.
    """
    smoothed = problem.weight if factor is None else problem.weight * factor.float()
    down = up = basis = None
    residual = smoothed
    if problem.rank:
        source = smoothed if previous is None else smoothed - previous
        dtype = DTYPES[problem.config.branch_dtype]
        down, up, low, basis = stored_branch(source, factor, problem.rank, problem.config.svd, dtype, start)
        residual = smoothed - low
    quantizer = problem.quantizer if refine else problem.quantizer.model_copy(update={"search": 0})
    codes, params = quantizer.encode(residual, "linear_weight")
    return _scored(problem, Candidate(factor, down, up, codes, params, 0.0, basis=basis), x)


def iterate(problem: Problem, factor: Tensor | None) -> Candidate:
    """Alternate ``L = SVD(W - Q)`` and ``Q = Q(W - L)``; keep the best, stop at the first that is worse."""
    x = problem.quantized_rows(factor)
    best = attempt(problem, factor, x, None)
    rounds = 1
    if problem.rank:
        current = best
        for _ in range(problem.config.iterations - 1):
            current = attempt(problem, factor, x, _residual(problem, current), start=current.basis)
            rounds += 1
            if current.error >= best.error:
                break
            best = current
    return replace(best, notes={"rounds": rounds})


def _residual(problem: Problem, found: Candidate) -> Tensor:
    return problem.quantizer.decode(found.codes, found.params, "linear_weight")


def _scored(problem: Problem, found: Candidate, x: Tensor) -> Candidate:
    """Squared output error over the calibration rows; the shift is taken back as the bias will do it."""
    decoded = _residual(problem, found)
    out = x @ decoded.T
    if problem.shift:
        out = out - shift_bias(decoded, found.factor, problem.shift)
    if found.down is not None and found.up is not None:
        out = out + (problem.rows @ found.down.float().T) @ found.up.float().T
    return replace(found, error=float((out - problem.target).double().square().sum()))


def shift_bias(decoded: Tensor, factor: Tensor | None, shift: float) -> Tensor:
    """Return what the shift adds to the output through the quantized residual, (N,)."""
    unsmoothed = decoded if factor is None else decoded / factor.float()
    return shift * unsmoothed.sum(1)


def _gptq(problem: Problem, best: Candidate) -> Candidate:
    """Codes with error feedback on the chosen branch; rounding stays where it measures better."""
    smoothed = problem.weight if best.factor is None else problem.weight * best.factor.float()
    residual = smoothed
    if best.down is not None and best.up is not None:
        residual = smoothed - branch_weight(best.down, best.up, best.factor)
    # without the shift: the bias takes it back through the codes, so what they do to it costs nothing
    inputs = problem.rows if best.factor is None else problem.rows / best.factor.float()
    codes = gptq_codes(
        residual, inputs, problem.quantizer, best.params, problem.config.damp, problem.config.block
    )
    fed = _scored(problem, replace(best, codes=codes), problem.quantized_rows(best.factor))
    chosen = fed if fed.error < best.error else best
    return replace(chosen, notes={**best.notes, "gptq": chosen is fed})
