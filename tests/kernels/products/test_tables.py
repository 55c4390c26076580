"""FP4, codebook and binary weights: operands through a table, products exact where the card says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kernels import packing
from kernels.products.expand_table import codebook_tables, expand_table, fp4_table
from kernels.products.gemm import gemm
from kernels.rows.quantize import quantize
from kernels.tuned.configs import Config

SHAPES = [(20, 64), (7, 123), (1, 9)]


def codes(n: int, k: int, bits: int) -> torch.Tensor:
    return torch.randint(0, 2**bits, (n, k), generator=torch.Generator().manual_seed(n + k)).to(torch.uint8)


def check(device: str) -> None:
    """Kernel against reference, byte for byte."""
    for n, k in SHAPES:
        for bits in (1, 2, 3, 4, 7):
            packed = packing.pack(codes(n, k, bits), bits).to(device)
            generator = torch.Generator().manual_seed(bits)
            for rows in (1, n):
                integers = torch.randint(-127, 128, (rows, 2**bits), generator=generator, dtype=torch.int8)
                for table in (integers.to(device), integers.float().to(torch.float8_e4m3fn).to(device)):
                    exact = expand_table(packed, table, bits, k, "reference").value
                    ours = expand_table(packed, table, bits, k, "triton", Config(1, 4, 32, 1, 4)).value
                    assert torch.equal(exact.view(torch.uint8), ours.view(torch.uint8)), (
                        n,
                        k,
                        bits,
                        table.dtype,
                    )


def test_interpreted(interpreted: Callable[[str], None]) -> None:
    interpreted(__file__)


@pytest.mark.gpu
def test_compiled() -> None:
    check("cuda")


@pytest.mark.parametrize("kind", ["e2m1", "e1m2"])
def test_fp4_is_exact_in_float8(kind: str) -> None:
    raw = codes(12, 70, 4)
    magnitudes = fp4_table(kind).float()[0]
    weight = magnitudes[raw.long()]
    operand = expand_table(packing.pack(raw, 4), fp4_table(kind), 4, 70).value
    assert torch.equal(operand[:, :70].float(), weight)
    x = torch.randn(5, 70, generator=torch.Generator().manual_seed(1))
    rows = quantize(x, "e4m3_token")
    out = gemm(
        rows.codes, rows.scale, operand, torch.full((12,), 0.25), dtype=torch.float64, path="reference"
    )
    exact = rows.codes[:, :70].double() * rows.scale[:, None].double() @ weight.double().T * 0.25
    assert torch.equal(out.value, exact) or torch.allclose(out.value, exact, rtol=1e-12)


def test_codebooks_are_two_tables_of_16_bits() -> None:
    values = torch.randn(6, 16, generator=torch.Generator().manual_seed(2))
    values[5] = 0
    total = sum(table.double() * scale.double()[:, None] for table, scale in codebook_tables(values))
    assert ((total - values).abs() <= values.abs().amax(1, keepdim=True) * 2.0**-16).all()


def test_two_binary_bases_are_two_exact_products() -> None:
    signs = [codes(9, 33, 1), 1 - codes(9, 34, 1)[:, :33]]
    bases = [torch.rand(9), torch.rand(9) * 0.3]
    x = torch.randn(4, 33, generator=torch.Generator().manual_seed(3))
    rows = quantize(x, "int_token", 8)
    table = torch.tensor([[-1, 1]], dtype=torch.int8)
    total = torch.zeros(4, 9, dtype=torch.float64)
    weight = torch.zeros(9, 33, dtype=torch.float64)
    for sign, base in zip(signs, bases, strict=True):
        operand = expand_table(packing.pack(sign, 1), table, 1, 33).value
        total += gemm(rows.codes, rows.scale, operand, base, dtype=torch.float64, path="reference").value
        weight += (2.0 * sign.double() - 1) * base.double()[:, None]
    exact = (rows.codes[:, :33].double() * rows.scale[:, None].double()) @ weight.T
    torch.testing.assert_close(total, exact, rtol=1e-12, atol=1e-12)


def test_bad_input_is_named() -> None:
    packed = packing.pack(codes(3, 8, 4), 4)
    with pytest.raises(ValueError, match="1 to 8 bits, got 9"):
        expand_table(packed, fp4_table(), 9, 8)
    with pytest.raises(ValueError, match=r"shape \(1, 16\) or \(3, 16\)"):
        expand_table(packed, fp4_table().float(), 4, 8)
    with pytest.raises(ValueError, match="one of e2m1, e1m2"):
        fp4_table("e3m0")
