"""Product of 8-bit codes with one scale a row and one a column (W8A8 in int8 or float8 e4m3).

    y_mn   = (sum_k a_mk b_nk) row_scale_m column_scale_n + bias_n + sum_r low_mr up_nr
    out_mn = activation(y_mn) + residual_mn,    or codes of it in steps of out_scale_m

Codes of fewer bits times small exact group scales are 8-bit operands, too (`kernels.products.expand`), so
this is also the product of W4A4 and W4A8. int8 sums are exact in int32 (K < 2^17). float8 sums are kept by
Hopper's tensor cores with about 14 bits, as in torch's ``use_fast_accum``; the reference sums in float64.

Reads M K + N K bytes and M + N scales (and (M + N) R elements of the branch), writes M N elements; 2 M N K
operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import paths
from kernels.registered import on_its_device, operation
from kernels.rows.operands import padded_rank
from kernels.tuned.configs import Config
from kernels.tuned.table import lookup

OPERANDS = (torch.int8, torch.float8_e4m3fn)
OUTPUTS = (torch.bfloat16, torch.float16, torch.float32)
CODES = {torch.int8: 127, torch.float8_e4m3fn: 448}
"""Largest code of the types that the next layer reads."""
ACTIVATIONS = ("none", "gelu", "gelu_tanh", "silu")
LONGEST_INT_SUM = 2**17 - 1
"""Products of -128 that int32 holds."""


def gemm(
    a: Tensor,
    row_scale: Tensor,
    b: Tensor,
    column_scale: Tensor,
    bias: Tensor | None = None,
    low: Tensor | None = None,
    up: Tensor | None = None,
    dtype: torch.dtype = torch.bfloat16,
    path: paths.Path = "auto",
    config: Config | None = None,
    activation: str = "none",
    residual: Tensor | None = None,
    out_scale: Tensor | None = None,
) -> paths.Result:
    """Multiply rows of codes by a weight of codes.

    Parameters
    ----------
    a : int8 or float8_e4m3fn tensor of shape (M, K)
        Rows may lie further apart than K elements; within a row they must be neighbours.
    row_scale : float32 tensor of shape (M,)
        A NaN makes its row NaN.
    b : tensor of shape (N, K)
        Of the type of `a`.
    column_scale : float32 tensor of shape (N,)
    bias : tensor of shape (N,), optional
    low, up : bfloat16 or float16 tensors of shape (M, R) and (N, R), optional
        The low-rank branch after its down-projection, and its up-projection; R is padded to a power of two
        from 16.
    dtype : torch.dtype
        Of the output; float64 on the reference path only; int8 and float8_e4m3fn are codes for the next
        layer, and take `out_scale`.
    path : str in {"auto", "reference", "triton"}
    config : Config, optional
        Tiles to use instead of those of the table.
    activation : str in {"none", "gelu", "gelu_tanh", "silu"}
    residual : tensor of shape (M, N), optional
        Added after the activation.
    out_scale : float32 tensor of shape (M,), optional
        Steps of the codes that are written; a NaN makes a float8 code NaN and an int8 code 0.

    Returns
    -------
    paths.Result
        ``value`` (M, N) and ``path``.
    """
    _check(a, row_scale, b, column_scale, bias, low, up)
    _check_finish(a, b, dtype, activation, residual, out_scale)
    chosen = paths.choose(path, a, (8, 0) if a.dtype == torch.int8 else paths.FLOAT8)
    if chosen == "reference":
        out = reference(a, row_scale, b, column_scale, bias, low, up, dtype, activation, residual, out_scale)
        return paths.Result(out, "reference")
    if dtype not in OUTPUTS and out_scale is None:
        raise ValueError(f"gemm: the Triton path writes bfloat16, float16 or float32, got {dtype}")
    if row_scale.dtype != torch.float32 or column_scale.dtype != torch.float32:
        raise ValueError(
            f"gemm: the Triton path takes scales in float32, got {row_scale.dtype} and {column_scale.dtype}"
        )
    arguments = (a, row_scale, b, column_scale, bias, low, up, dtype, activation, residual, out_scale)
    return paths.Result(
        _gemm_op(*arguments) if config is None else on_its_device(_run)(*arguments, config), "triton"
    )


def reference(
    a: Tensor, row_scale: Tensor, b: Tensor, column_scale: Tensor, bias: Tensor | None,
    low: Tensor | None, up: Tensor | None, dtype: torch.dtype, activation: str, residual: Tensor | None,
    out_scale: Tensor | None,
) -> Tensor:  # fmt: skip
    """Plain torch, any device: float64 holds every partial sum of 8-bit codes exactly."""
    out = (a.double() @ b.double().T) * row_scale.double()[:, None] * column_scale.double()
    if bias is not None:
        out = out + bias.double()
    if low is not None and up is not None:
        out = out + low.double() @ up.double().T
    if activation == "silu":
        out = torch.nn.functional.silu(out)
    elif activation != "none":
        tanh = "tanh" if activation == "gelu_tanh" else "none"
        out = torch.nn.functional.gelu(out, approximate=tanh)
    if residual is not None:
        out = out + residual.double()
    if out_scale is None:
        return out.to(dtype)
    steps = (out / out_scale.double()[:, None]).clamp(-CODES[dtype], CODES[dtype])
    return torch.nan_to_num(steps.round(), nan=0.0).to(dtype) if dtype == torch.int8 else steps.to(dtype)


def _empty(
    a: Tensor, row_scale: Tensor, b: Tensor, column_scale: Tensor, bias: Tensor | None,
    low: Tensor | None, up: Tensor | None, dtype: torch.dtype, activation: str, residual: Tensor | None,
    out_scale: Tensor | None,
) -> Tensor:  # fmt: skip
    return a.new_empty(a.shape[0], b.shape[0], dtype=dtype)


@operation(
    "gemm",
    "(Tensor a, Tensor row_scale, Tensor b, Tensor column_scale, Tensor? bias, Tensor? low, Tensor? up, "
    "ScalarType dtype, str activation, Tensor? residual, Tensor? out_scale) -> Tensor",
    _empty,
)
def _gemm_op(
    a: Tensor, row_scale: Tensor, b: Tensor, column_scale: Tensor, bias: Tensor | None,
    low: Tensor | None, up: Tensor | None, dtype: torch.dtype, activation: str, residual: Tensor | None,
    out_scale: Tensor | None,
) -> Tensor:  # fmt: skip
    return _run(a, row_scale, b, column_scale, bias, low, up, dtype, activation, residual, out_scale, None)


def _run(
    a: Tensor, row_scale: Tensor, b: Tensor, column_scale: Tensor, bias: Tensor | None,
    low: Tensor | None, up: Tensor | None, dtype: torch.dtype, activation: str, residual: Tensor | None,
    out_scale: Tensor | None, config: Config | None,
) -> Tensor:  # fmt: skip
    from kernels.products.gemm_kernels import aligned, launch

    (m, k), n = a.shape, b.shape[0]
    out = torch.empty(m, n, dtype=dtype, device=a.device)
    if out.numel() == 0:
        return out
    missing = 0 if low is None else padded_rank(low.shape[1]) - low.shape[1]
    if low is not None and up is not None and missing:
        low, up = (torch.nn.functional.pad(factor, (0, missing)) for factor in (low, up))
    elif low is not None and up is not None:
        low, up = (t if aligned(t) else t.clone() for t in (low, up))  # the copy engine reads them
    kind = ("gemm_int8" if a.dtype == torch.int8 else "gemm_fp8") + ("" if low is None else "_rank")
    launch(
        a, row_scale, b, column_scale, bias, low, up, out, activation, residual, out_scale,
        config or lookup(kind, (m, n, k), a.device),
    )  # fmt: skip
    return out


def _check(
    a: Tensor, row_scale: Tensor, b: Tensor, column_scale: Tensor, bias: Tensor | None,
    low: Tensor | None, up: Tensor | None,
) -> None:  # fmt: skip
    if a.dtype not in OPERANDS or b.dtype != a.dtype:
        raise ValueError(
            f"gemm: both operands must be int8 or both float8_e4m3fn, got {a.dtype} and {b.dtype}"
        )
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(
            f"gemm: operands must be (M, K) and (N, K), got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if a.stride(1) != 1 or b.stride(1) != 1:
        raise ValueError(
            f"gemm: codes of a row must be neighbours, got strides {a.stride()} and {b.stride()}"
        )
    if a.dtype == torch.int8 and a.shape[1] > LONGEST_INT_SUM:
        raise ValueError(f"gemm: int8 sums overflow int32 above K = {LONGEST_INT_SUM}, got {a.shape[1]}")
    (m, _), n = a.shape, b.shape[0]
    wanted = {"row_scale": (row_scale, m), "column_scale": (column_scale, n), "bias": (bias, n)}
    for name, (tensor, size) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != (size,):
            raise ValueError(f"gemm: {name} must have shape ({size},), got {tuple(tensor.shape)}")
        paths.check_contiguous("gemm", **{name: tensor})
    for name, scale in (("row_scale", row_scale), ("column_scale", column_scale)):
        if scale.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"gemm: {name} must be float32, got {scale.dtype}")
    if (low is None) != (up is None):
        raise ValueError("gemm: low and up belong together, got only one of them")
    if low is not None and up is not None:
        _check_branch(low, up, m, n)
    paths.check_device("gemm", a, row_scale, b, column_scale, bias, low, up)


def _check_branch(low: Tensor, up: Tensor, m: int, n: int) -> None:
    if low.ndim != 2 or up.shape != (n, low.shape[1]) or low.shape[0] != m:
        raise ValueError(
            f"gemm: low and up must be ({m}, R) and ({n}, R), got {tuple(low.shape)}, {tuple(up.shape)}"
        )
    if low.dtype != up.dtype or low.dtype not in (torch.bfloat16, torch.float16):
        raise ValueError(f"gemm: low and up must be bfloat16 or float16 both, got {low.dtype} and {up.dtype}")
    if not (low.is_contiguous() and up.is_contiguous()):
        raise ValueError("gemm: low and up must be contiguous")


def _check_finish(
    a: Tensor, b: Tensor, dtype: torch.dtype, activation: str, residual: Tensor | None,
    out_scale: Tensor | None,
) -> None:  # fmt: skip
    m, n = a.shape[0], b.shape[0]
    if activation not in ACTIVATIONS:
        raise ValueError(f"gemm: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if residual is not None and (
        tuple(residual.shape) != (m, n) or residual.stride(1) != 1 or not residual.is_floating_point()
    ):
        raise ValueError(
            f"gemm: residual must be a float ({m}, {n}), neighbours in a row, got "
            f"{tuple(residual.shape)} {residual.dtype}"
        )
    if (dtype in CODES) != (out_scale is not None):
        raise ValueError(f"gemm: out_scale belongs to int8 and float8_e4m3fn outputs, got {dtype}")
    if out_scale is not None and (tuple(out_scale.shape) != (m,) or out_scale.dtype != torch.float32):
        raise ValueError(
            f"gemm: out_scale must be float32 of shape ({m},), got {tuple(out_scale.shape)} {out_scale.dtype}"
        )
    paths.check_contiguous("gemm", out_scale=out_scale)
    paths.check_device("gemm", a, residual, out_scale)
