"""Timed linears of other weights: 4-bit floats, codebooks, binary bases, decoded in every call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kernels import packing, paths
from kernels.bench.timed import ROWS, Timed
from kernels.products.expand_table import codebook_tables, expand_table, fp4_table
from kernels.products.gemm import gemm
from kernels.rows.quantize import quantize

Term = tuple[Tensor, Tensor]
"""Table of a product, and the scales of its columns."""


def formats(x: Tensor, n: int, bias: Tensor, random: torch.Generator) -> list[Timed]:
    """Quantize by token, decode, multiply once a term.

    Parameters
    ----------
    x : 16-bit tensor of shape (M, K)
    n : int
        Output channels.
    bias : tensor of shape (N,)
    random : torch.Generator
    """
    device = x.device
    column = (torch.rand(n, generator=random, device=device) + 0.5) * 1e-2
    signs = [torch.tensor([s], dtype=torch.int8, device=device) for s in ((-1, 1, -1, 1), (-1, -1, 1, 1))]
    values = torch.randn(n, 16, generator=random, device=device) * column[:, None]
    weights: list[tuple[str, int, list[Term]]] = [
        ("W4A8 e4m3, FP4 a channel", 4, [(fp4_table(device=device), column)]),
        ("W4A4 codebook of 16 a channel", 4, codebook_tables(values)[::-1]),
        ("W1A4 one binary basis", 1, [(signs[0][:, :2].contiguous(), column)]),
        ("W2A4 two binary bases", 2, [(sign, column / 2**index) for index, sign in enumerate(signs)][::-1]),
    ]
    return [_case(x, n, bias, random, *weight) for weight in weights]


def _case(
    x: Tensor, n: int, bias: Tensor, random: torch.Generator, what: str, bits: int, terms: list[Term]
) -> Timed:
    m, k = x.shape
    codes = torch.randint(0, 2**bits, (n, k), generator=random, device=x.device).to(torch.uint8)
    packed, float8 = packing.pack(codes, bits), terms[0][0].dtype != torch.int8

    def product(rows: Tensor, path: paths.Path = "auto", dtype: torch.dtype = x.dtype) -> Tensor:
        coded = (
            quantize(rows, "e4m3_token", path=path) if float8 else quantize(rows, "int_token", 4, path=path)
        )
        out: Tensor | None = None
        for index, (table, column) in enumerate(terms):
            last = index == len(terms) - 1
            out = gemm(
                coded.codes, coded.scale, expand_table(packed, table, bits, k, path).value, column,
                bias if last else None, dtype=dtype, path=path, residual=out,
            ).value  # fmt: skip
        assert out is not None
        return out

    call: Callable[[], Tensor] = lambda: product(x)  # noqa: E731
    return Timed(
        what, [call], lambda: product(x[:ROWS], "reference", torch.float64),
        2 * m * k + n * k * bits / 8 + 2 * m * n, 2.0 * m * n * k * len(terms), "fp8" if float8 else "int8",
    )  # fmt: skip
