"""Rounding with error feedback (GPTQ, Frantar et al. 2023) on scales that are fixed beforehand."""

from __future__ import annotations

import torch
from torch import Tensor

from quant.errors import InputError
from quant.formats.grids import Params
from quant.formats.quantizer import Quantizer
from quant.formats.scales import effective


def gptq_codes(
    weight: Tensor, inputs: Tensor, quantizer: Quantizer, params: Params, damp: float, block: int
) -> Tensor:
    """Codes of a weight whose rounding errors are pushed into the columns still to come.

    Columns are taken by falling Hessian diagonal; group scales come from the weight before any of this and
    are looked up through the permutation (static groups).

    Parameters
    ----------
    weight : tensor of shape (N, K)
    inputs : tensor of shape (n, K)
        Calibration rows; ``H = 2/n X^T X``.
    quantizer : Quantizer
    params : dict of str to tensor
        Of the whole weight.
    damp : float
        Share of the mean diagonal added to it; raised by 0.1 % until the factorization succeeds, 250 times at
        most.
    block : int
        Columns between lazy updates.

    Returns
    -------
    tensor of shape (N, K)
    """
    n_rows, width = weight.shape
    hessian = 2.0 / len(inputs) * (inputs.float().T @ inputs.float())
    dead = hessian.diagonal() == 0
    # as large as the others are: 1 would drown small inputs, whose codes would then be plain rounding
    alive = hessian.diagonal()[~dead]
    hessian.diagonal()[dead] = alive.mean() if len(alive) else 1.0
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
    upper = _inverse_factor(hessian[order][:, order], damp)
    scale = _column_scales(quantizer, params, n_rows, width)[:, order]
    # channels that never fired are rounded to nearest, not to 0: they may fire on other data
    rest = weight.float()[:, order]
    codes = torch.empty(n_rows, width, dtype=torch.int8 if quantizer.grid.signed_codes else torch.uint8)
    codes = codes.to(weight.device)
    for start in range(0, width, block):
        stop = min(start + block, width)
        errors = torch.zeros(n_rows, stop - start, device=weight.device)
        for column in range(start, stop):
            value, one = rest[:, column], {"scale": scale[:, column]}
            code = quantizer.grid.encode(value, one)
            codes[:, column] = code
            error = (value - quantizer.grid.decode(code, one, torch.float32)) / upper[column, column]
            rest[:, column:stop] -= error[:, None] * upper[column, column:stop]
            errors[:, column - start] = error
        rest[:, stop:] -= errors @ upper[start:stop, stop:]
    out = torch.empty_like(codes)
    out[:, order] = codes
    return out


def _inverse_factor(hessian: Tensor, damp: float) -> Tensor:
    """Upper Cholesky factor of the inverse of the damped Hessian."""
    mean = hessian.diagonal().mean()
    for attempt in range(250):
        damped = hessian.clone()
        damped.diagonal().add_(mean * (damp + 0.001 * attempt))
        factor, failed = torch.linalg.cholesky_ex(damped)
        if int(failed) == 0:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(factor), upper=True)
            if int(failed) == 0:
                return upper
    raise InputError("GPTQ: the inputs' Hessian stays singular after 250 raises of the damping; raise damp")


def _column_scales(quantizer: Quantizer, params: Params, rows: int, width: int) -> Tensor:
    """Scale of every weight, (N, K)."""
    view = quantizer.granularity.view(torch.empty(rows, width, device="meta"), "linear_weight").tensor
    scale = effective(params, torch.float32)["scale"].float()
    full = scale.expand(view.shape)
    return quantizer.granularity.unview(full, (rows, width), "linear_weight").reshape(rows, width)
