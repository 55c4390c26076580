"""2-D convolution of 8-bit codes as an implicit matrix product, channels last (W8A8 in int8 or float8 e4m3).

    out_bijn = (sum_(p q c) x_b,(i s + p),(j s + q),c  w_npqc) sample_scale_b column_scale_n + bias_n

A k x k sum runs over several pixels, so what it can have for free is one scale an image and one an output
channel. Codes are symmetric: zero padding is exact, there is no correction at the border.

Reads the image once a tap, mostly from the cache; 2 B OH OW N KH KW C operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import paths
from kernels.registered import on_its_device, operation
from kernels.tuned.configs import Config
from kernels.tuned.table import lookup

OPERANDS = (torch.int8, torch.float8_e4m3fn)
OUTPUTS = (torch.bfloat16, torch.float16, torch.float32)
LONGEST_INT_SUM = 2**17 - 1
"""Products of -128 that int32 holds."""
MOST_PIXELS = 2**31 - 2**10
"""Pixels of a call: kernels count them in 32 bits."""


def conv2d(
    x: Tensor,
    sample_scale: Tensor,
    weight: Tensor,
    column_scale: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    dtype: torch.dtype = torch.bfloat16,
    path: paths.Path = "auto",
    config: Config | None = None,
) -> paths.Result:
    """Convolve images of codes.

    Parameters
    ----------
    x : int8 or float8_e4m3fn tensor of shape (B, H, W, C)
    sample_scale : float32 tensor of shape (B,)
        A NaN makes its image NaN.
    weight : tensor of shape (N, KH, KW, C)
        Of the type of `x`.
    column_scale : float32 tensor of shape (N,)
    bias : tensor of shape (N,), optional
    stride, padding, dilation : tuples of int
        Vertical, horizontal; padding is with zeros.
    dtype : torch.dtype
        Of the output; float64 on the reference path only.
    path : str in {"auto", "reference", "triton"}
    config : Config, optional
        ``keep`` gathers pixels through pointers where the copy engine could be used.

    Returns
    -------
    paths.Result
        ``value`` of shape (B, N, OH, OW), channels last in memory.
    """
    _check(x, sample_scale, weight, column_scale, bias, stride, padding, dilation)
    if paths.choose(path, x, (8, 0) if x.dtype == torch.int8 else paths.FLOAT8) == "reference":
        out = reference(x, sample_scale, weight, column_scale, bias, stride, padding, dilation, dtype)
        return paths.Result(out, "reference")
    if dtype not in OUTPUTS:
        raise ValueError(f"conv2d: the Triton path writes bfloat16, float16 or float32, got {dtype}")
    if sample_scale.dtype != torch.float32 or column_scale.dtype != torch.float32:
        raise ValueError(
            "conv2d: the Triton path takes scales in float32, "
            f"got {sample_scale.dtype} and {column_scale.dtype}"
        )
    arguments = (x, sample_scale, weight, column_scale, bias, [*stride], [*padding], [*dilation], dtype)
    out = _conv2d_op(*arguments) if config is None else on_its_device(_run)(*arguments, config)
    return paths.Result(out.permute(0, 3, 1, 2), "triton")


def reference(
    x: Tensor, sample_scale: Tensor, weight: Tensor, column_scale: Tensor, bias: Tensor | None,
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """Plain torch, any device: float64 holds every partial sum of 8-bit codes exactly."""
    image, kernel = x.double().permute(0, 3, 1, 2), weight.double().permute(0, 3, 1, 2)
    out = torch.nn.functional.conv2d(image, kernel, None, stride, padding, dilation)
    out = out * sample_scale.double()[:, None, None, None] * column_scale.double()[:, None, None]
    return (out if bias is None else out + bias.double()[:, None, None]).to(dtype)


def output_size(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Pixels along one axis."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _empty(
    x: Tensor, sample_scale: Tensor, weight: Tensor, column_scale: Tensor, bias: Tensor | None,
    stride: list[int], padding: list[int], dilation: list[int], dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    size = [
        output_size(x.shape[1 + axis], weight.shape[1 + axis], stride[axis], padding[axis], dilation[axis])
        for axis in (0, 1)
    ]
    return x.new_empty(x.shape[0], *size, weight.shape[0], dtype=dtype)


@operation(
    "conv2d",
    "(Tensor x, Tensor sample_scale, Tensor weight, Tensor column_scale, Tensor? bias, int[] stride, "
    "int[] padding, int[] dilation, ScalarType dtype) -> Tensor",
    _empty,
)
def _conv2d_op(
    x: Tensor, sample_scale: Tensor, weight: Tensor, column_scale: Tensor, bias: Tensor | None,
    stride: list[int], padding: list[int], dilation: list[int], dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    return _run(x, sample_scale, weight, column_scale, bias, stride, padding, dilation, dtype, None)


def _run(
    x: Tensor, sample_scale: Tensor, weight: Tensor, column_scale: Tensor, bias: Tensor | None,
    stride: list[int], padding: list[int], dilation: list[int], dtype: torch.dtype, config: Config | None,
) -> Tensor:  # fmt: skip
    from kernels.images.conv2d_kernels import launch

    out = _empty(x, sample_scale, weight, column_scale, bias, stride, padding, dilation, dtype)
    if out.numel():
        b, oh, ow, n = out.shape
        taps = weight.shape[1] * weight.shape[2]
        config = config or lookup("conv2d", (b * oh * ow, n, taps * x.shape[3]), x.device)
        pairs = (tuple(stride), tuple(padding), tuple(dilation))
        launch(x, weight, sample_scale, column_scale, bias, out, *pairs, config)  # type: ignore[arg-type]
    return out


def _check(
    x: Tensor, sample_scale: Tensor, weight: Tensor, column_scale: Tensor, bias: Tensor | None,
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int],
) -> None:  # fmt: skip
    if x.dtype not in OPERANDS or weight.dtype != x.dtype:
        raise ValueError(
            f"conv2d: codes must be int8 or float8_e4m3fn both, got {x.dtype} and {weight.dtype}"
        )
    if x.ndim != 4 or weight.ndim != 4 or x.shape[3] != weight.shape[3]:
        raise ValueError(
            "conv2d: codes must be (B, H, W, C) and (N, KH, KW, C), "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if not (x.is_contiguous() and weight.is_contiguous()):
        raise ValueError("conv2d: codes must be contiguous with channels last")
    if x.dtype == torch.int8 and weight[0].numel() > LONGEST_INT_SUM:
        raise ValueError(
            f"conv2d: int8 sums overflow above {LONGEST_INT_SUM} products, got {weight[0].numel()}"
        )
    if min(*stride, *dilation) < 1 or min(padding) < 0:
        raise ValueError(f"conv2d: bad stride {stride}, padding {padding} or dilation {dilation}")
    wanted = {"sample_scale": (sample_scale, x.shape[0]), "column_scale": (column_scale, weight.shape[0])}
    for name, (scale, size) in wanted.items():
        if tuple(scale.shape) != (size,) or scale.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"conv2d: {name} must be float32 of shape ({size},), got {tuple(scale.shape)} {scale.dtype}"
            )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(f"conv2d: bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")
    size = [
        output_size(x.shape[1 + axis], weight.shape[1 + axis], stride[axis], padding[axis], dilation[axis])
        for axis in (0, 1)
    ]
    if min(size) < 1:
        raise ValueError(
            f"conv2d: a kernel of {tuple(weight.shape[1:3])} with padding {padding} and dilation "
            f"{dilation} does not fit an image of {tuple(x.shape[1:3])}"
        )
    if max(x[..., 0].numel(), x.shape[0] * size[0] * size[1]) > MOST_PIXELS:
        raise ValueError(
            f"conv2d: at most {MOST_PIXELS} pixels, got {tuple(x.shape)}; fewer images at a time"
        )
    paths.check_contiguous("conv2d", sample_scale=sample_scale, column_scale=column_scale, bias=bias)
    paths.check_device("conv2d", x, sample_scale, weight, column_scale, bias)
