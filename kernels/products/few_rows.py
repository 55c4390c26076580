"""Linear on packed 4-bit weights for few rows: input in 16 bit, weight decoded in registers (W4A16).

    out_mn = column_n sum_g scale_ng sum_(k in g) code_nk x_mk + bias_n

For layers that see one token or a few (modulation, time embeddings, keys and values of short prompts) the
time is that of reading the weight: N K / 2 bytes. Sums are float32 and the same whatever the order of
programs.

Layout: row-major, two codes a byte, even k in the low nibble, two's complement; the last group may be
incomplete.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import packing, paths
from kernels.registered import on_its_device, operation
from kernels.tuned.configs import Config
from kernels.tuned.table import lookup

HALVES = (torch.bfloat16, torch.float16)
SCALES = (torch.int8, torch.uint8, torch.bfloat16, torch.float16, torch.float32)
"""Types of scales that the Triton path reads."""
ROWS_AT_ONCE = 2**18
"""Rows of a launch: 65535 programs along them are the most, and each has at least 8."""


def few_rows(
    x: Tensor,
    packed: Tensor,
    scale: Tensor,
    group: int,
    column_scale: Tensor | None = None,
    bias: Tensor | None = None,
    path: paths.Path = "auto",
    config: Config | None = None,
) -> paths.Result:
    """Multiply rows by a weight that is decoded next to the product.

    Parameters
    ----------
    x : float tensor of shape (M, K)
        bfloat16 or float16 on the Triton path.
    packed : uint8 tensor of shape (N, ceil(K / 2))
    scale : tensor of shape (N, ceil(K / group))
        Real group scales; or fine ones of two levels: int8 exponents of two, uint8 integers. The Triton path
        multiplies codes by them in the type of `x`: float16 wants them above 2^-14, by `column_scale`.
    group : int
        The Triton path takes powers of two from 32.
    column_scale : float32 tensor of shape (N,), optional
        Coarse scale of two levels.
    bias : tensor of shape (N,), optional
    path : str in {"auto", "reference", "triton"}
    config : Config, optional
    """
    _check(x, packed, scale, group, column_scale, bias)
    if paths.choose(path, x) == "reference":
        return paths.Result(reference(x, packed, scale, group, column_scale, bias), "reference")
    if x.dtype not in HALVES or group < 32 or group & (group - 1):
        raise ValueError(
            "few_rows: the Triton path takes bfloat16 or float16 and groups of a power of two from 32, "
            f"got {x.dtype} and {group}"
        )
    if scale.dtype not in SCALES:
        raise ValueError(
            "few_rows: the Triton path takes scales in int8, uint8, bfloat16, float16 or float32, "
            f"got {scale.dtype}"
        )
    arguments = (x, packed, scale, group, column_scale, bias)
    return paths.Result(
        _few_rows_op(*arguments) if config is None else on_its_device(_run)(*arguments, config), "triton"
    )


def _empty(
    x: Tensor, packed: Tensor, scale: Tensor, group: int, column_scale: Tensor | None, bias: Tensor | None
) -> Tensor:
    return x.new_empty(x.shape[0], packed.shape[0])


@operation(
    "few_rows",
    "(Tensor x, Tensor packed, Tensor scale, int group, Tensor? column_scale, Tensor? bias) -> Tensor",
    _empty,
)
def _few_rows_op(
    x: Tensor, packed: Tensor, scale: Tensor, group: int, column_scale: Tensor | None, bias: Tensor | None
) -> Tensor:
    return _run(x, packed, scale, group, column_scale, bias, None)


def _run(
    x: Tensor, packed: Tensor, scale: Tensor, group: int, column_scale: Tensor | None, bias: Tensor | None,
    config: Config | None,
) -> Tensor:  # fmt: skip
    from kernels.products.few_rows_kernels import launch

    out = _empty(x, packed, scale, group, column_scale, bias)
    if out.numel():
        config = config or lookup("few_rows", (*out.shape, x.shape[1]), x.device)
        for rows in range(0, out.shape[0], ROWS_AT_ONCE):
            some = slice(rows, rows + ROWS_AT_ONCE)
            launch(x[some], packed, scale, column_scale, bias, out[some], group, config)
    return out


def reference(
    x: Tensor, packed: Tensor, scale: Tensor, group: int, column_scale: Tensor | None, bias: Tensor | None
) -> Tensor:
    """Plain torch, any device: expand, then multiply in at least float32."""
    k = x.shape[1]
    dtype = torch.promote_types(x.dtype, torch.float32)
    codes = packing.unpack(packed, 4, k, signed=True).to(dtype)
    real = torch.exp2(scale.to(dtype)) if scale.dtype == torch.int8 else scale.to(dtype)
    if column_scale is not None:
        real = real * column_scale.to(dtype)[:, None]
    out = x.to(dtype) @ (codes * real.repeat_interleave(group, dim=1)[:, :k]).T
    return (out if bias is None else out + bias.to(dtype)).to(x.dtype)


def _check(
    x: Tensor, packed: Tensor, scale: Tensor, group: int, column_scale: Tensor | None, bias: Tensor | None
) -> None:
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"few_rows: x must be a float (rows, columns), got {tuple(x.shape)} {x.dtype}")
    if group < 1 or packed.ndim != 2:
        raise ValueError(
            "few_rows: groups of at least one column and packed (N, bytes), "
            f"got {group} and {tuple(packed.shape)}"
        )
    k, n = x.shape[1], packed.shape[0]
    groups = -(-k // group)
    if (
        packed.dtype != torch.uint8
        or packed.shape[1] != packing.packed_bytes(k, 4)
        or tuple(scale.shape) != (n, groups)
    ):
        raise ValueError(
            f"few_rows: K = {k} in groups of {group} needs {packing.packed_bytes(k, 4)} bytes and "
            f"{groups} scales a row, got {tuple(packed.shape)} {packed.dtype} and {tuple(scale.shape)}"
        )
    for name, tensor in (("column_scale", column_scale), ("bias", bias)):
        if tensor is not None and tuple(tensor.shape) != (n,):
            raise ValueError(f"few_rows: {name} must have shape ({n},), got {tuple(tensor.shape)}")
    if k > 1 and x.stride(1) != 1:
        raise ValueError(f"few_rows: values of a row must be neighbours, got strides {x.stride()}")
    paths.check_contiguous("few_rows", packed=packed, scale=scale, column_scale=column_scale, bias=bias)
    paths.check_device("few_rows", x, packed, scale, column_scale, bias)
