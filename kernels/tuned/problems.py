"""Inputs to tune a kernel on: random data of a shape, and the call with a config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.attention.log_attention import log_attention
from kernels.images.conv2d import conv2d
from kernels.products.expand import expand
from kernels.products.few_rows import few_rows
from kernels.products.gemm import gemm
from kernels.rows.operands import padded_columns
from kernels.rows.quantize import quantize
from kernels.tuned.configs import Config

Shape = tuple[int, ...]
Call = Callable[[Config], object]
RANK = 32
WEIGHTS = 8
"""Weights a memory-bound problem rotates through, so that none stays in the cache."""


class Problem(NamedTuple):
    """Calls with a config, several where data must not stay in the cache, and what the first must give."""

    calls: list[Call]
    exact: Callable[[], Tensor]
    read: Callable[[Any], Tensor] = lambda out: out
    """Makes of a call's result what is compared with `exact`; not timed."""


def problem(kind: str, shape: Shape, device: torch.device, seed: int = 0) -> Problem:
    """Pose one kernel's problem on fresh data.

    Parameters
    ----------
    kind : str
        A key of `kernels.tuned.spaces.SPACES`.
    shape : tuple of int
        (M, N, K); (M, K, R) of quantize; (N, K) of expand.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def codes(rows: int, columns: int, fp8: bool) -> Tensor:
        if fp8:
            return torch.randn(rows, columns, generator=generator, device=device).to(torch.float8_e4m3fn)
        drawn = (
            torch.randn(rows, columns, generator=generator, device=device) * 34
        )  # the largest are near 127
        return drawn.round().clamp(-127, 127).to(torch.int8)

    def half(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device).to(torch.bfloat16)

    def scale(size: int) -> Tensor:
        return torch.rand(size, generator=generator, device=device) * 1e-2

    if kind.startswith("gemm"):
        (m, n, k), fp8 = shape, "fp8" in kind
        a, b = codes(m, k, fp8), codes(n, k, fp8)
        row, column, bias = scale(m), scale(n), half(n)
        low, up = (half(m, RANK), half(n, RANK)) if kind.endswith("rank") else (None, None)
        return Problem(
            [lambda config: gemm(a, row, b, column, bias, low, up, path="triton", config=config).value],
            lambda: gemm(a, row, b, column, bias, low, up, path="reference").value,
        )
    if kind == "product_fp8":
        m, n, k = shape
        a, b, row, column, bias = codes(m, k, True), codes(n, k, True), scale(m), scale(n), half(n)

        def either(config: Config) -> Tensor:
            if not config.vendor:
                return gemm(a, row, b, column, bias, path="triton").value
            return torch._scaled_mm(
                a, b.T, scale_a=row[:, None], scale_b=column[None], bias=bias, out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )  # fmt: skip

        return Problem([either], lambda: gemm(a, row, b, column, bias, path="reference").value)
    if kind == "quantize_many":
        return _many(half(*shape[:2]), half(shape[2], shape[1]) * 0.02, scale(shape[1]) + 0.5)
    if kind.startswith("quantize"):
        m, k, rank = shape
        x, inverse = half(m, k), scale(k) + 0.5
        down = half(rank, k) * 0.02 if rank else None
        return Problem(
            [
                lambda config: (
                    quantize(
                        x, "pow2_group", inverse_smooth=inverse, down=down, path="triton", config=config
                    ).codes
                )
            ],
            lambda: quantize(x, "pow2_group", inverse_smooth=inverse, down=down, path="reference").codes,
        )
    if kind == "expand":
        n, k = shape
        packed, fine = _packed(n, k, generator, device)
        tail = half(n, 4 * RANK).to(torch.float8_e4m3fn)
        return Problem(
            [lambda config: expand(packed, fine, k, tail=tail, least=-3, path="triton", config=config).value],
            lambda: expand(packed, fine, k, tail=tail, path="reference").value,
        )
    if kind == "conv2d":
        return _convolution(shape, codes, scale)
    if kind == "log_attention":
        queries, keys, d = shape
        q, k_, v = (half(2, 10, size, d) for size in (queries, keys, keys))
        return Problem(
            [lambda config: log_attention(q, k_, v, path="triton", config=config).value],
            lambda: log_attention(q, k_, v, path="reference").value,
        )
    if kind != "few_rows":
        raise ValueError(f"no problem for {kind!r}")
    m, n, k = shape
    x, column = half(m, k), scale(n)
    weights = [_packed(n, k, generator, device) for _ in range(WEIGHTS)]

    def call(packed: Tensor, fine: Tensor) -> Call:
        return lambda config: few_rows(x, packed, fine, 64, column, path="triton", config=config).value

    return Problem(
        [call(*weight) for weight in weights],
        lambda: few_rows(x, *weights[0], 64, column, path="reference").value,
    )


def _packed(n: int, k: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    packed = torch.randint(0, 256, (n, (k + 1) // 2), generator=generator, device=device, dtype=torch.uint8)
    fine = torch.randint(-3, 6, (n, -(-k // 64)), generator=generator, device=device, dtype=torch.int8)
    return packed, fine


def _many(x: Tensor, down: Tensor, inverse: Tensor) -> Problem:
    from kernels.rows.many_kernels import quantize_many

    padded, rows = padded_columns(x.shape[1]), x.shape[0]

    def call(config: Config) -> Tensor:
        codes = torch.empty(rows, padded + 4 * down.shape[0], dtype=torch.float8_e4m3fn, device=x.device)
        unit = torch.empty(rows, dtype=torch.float32, device=x.device)
        quantize_many(
            x, inverse, down, codes, unit, None, None, "pow2_group", (7, -7, 6), 64, 0.0, x.shape[1], padded,
            config,
        )  # fmt: skip
        return codes

    return Problem(
        [call],
        lambda: quantize(x, "pow2_group", inverse_smooth=inverse, down=down, path="reference").codes,
    )


def _convolution(shape: Shape, codes: Callable[..., Tensor], scale: Callable[[int], Tensor]) -> Problem:
    """Convolve two square images 3x3, with as many sums: 2 side^2, N, 9 C."""
    pixels, n, depth = shape
    side, c = round((pixels // 2) ** 0.5), depth // 9
    x, weight = (
        codes(2 * side * side, c, True).reshape(2, side, side, c),
        codes(n, depth, True).reshape(n, 3, 3, c),
    )
    arguments = (x, scale(2), weight, scale(n), None, (1, 1), (1, 1))
    return Problem(
        [lambda config: conv2d(*arguments, path="triton", config=config).value],
        lambda: conv2d(*arguments, path="reference").value,
    )
