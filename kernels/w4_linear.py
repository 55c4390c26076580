"""Linear on packed 4-bit weights with group scales, inputs in floating point.

    w_nk = code_nk * scale_n,g(k),   g(k) = k // group_size,   out = x w^T + bias

Layout: `packed` is row-major, two codes a byte, even k in the low nibble, two's complement; the last group
may be incomplete. Reads N*K/2 bytes of codes and N*K/group_size scales besides x.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import packing, paths


def w4_linear(
    x: Tensor,
    packed: Tensor,
    scale: Tensor,
    group_size: int,
    bias: Tensor | None = None,
    path: paths.Path = "auto",
) -> paths.Result:
    """Multiply rows by a weight that is expanded group by group.

    Parameters
    ----------
    x : float tensor of shape (M, K)
    packed : uint8 tensor of shape (N, ceil(K / 2))
    scale : float tensor of shape (N, ceil(K / group_size))
    group_size : int
    bias : tensor of shape (N,), optional
    path : str in {"auto", "reference", "triton"}
    """
    groups = -(-x.shape[1] // group_size)
    if packed.shape[1] != packing.packed_bytes(x.shape[1], 4) or scale.shape[1] != groups:
        raise ValueError(
            f"K = {x.shape[1]} in groups of {group_size} needs {packing.packed_bytes(x.shape[1], 4)} bytes "
            f"and {groups} scales a row, got {packed.shape[1]} and {scale.shape[1]}"
        )
    if paths.choose(path, x) == "reference":
        return paths.Result(reference(x, packed, scale, group_size, bias), "reference")
    from kernels.w4_linear_kernels import launch

    return paths.Result(launch(x, packed, scale, group_size, bias), "triton")


def reference(x: Tensor, packed: Tensor, scale: Tensor, group_size: int, bias: Tensor | None) -> Tensor:
    """Plain torch, any device: expand, then multiply in at least float32."""
    k = x.shape[1]
    dtype = torch.promote_types(x.dtype, torch.float32)
    codes = packing.unpack(packed, 4, k, signed=True).to(dtype)
    weight = codes * scale.to(dtype).repeat_interleave(group_size, dim=1)[:, :k]
    out = x.to(dtype) @ weight.T
    return (out if bias is None else out + bias.to(dtype)).to(x.dtype)
