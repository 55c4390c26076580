"""The plain-torch references against direct arithmetic, in float64 exactly."""

from __future__ import annotations

import pytest
import torch

from kernels import packing, paths
from kernels.int8_linear import int8_linear
from kernels.quantize_rows import quantize_rows
from kernels.w4_linear import w4_linear

SHAPES = [(64, 128, 64), (5, 123, 33), (1, 64, 1), (17, 1, 9)]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_int8_linear_is_exact_in_float64(m: int, k: int, n: int, bits: int) -> None:
    x, w, bias = drawn(m, k), drawn(n, k, seed=1), drawn(n, seed=2)
    rows, columns = quantize_rows(x, bits), quantize_rows(w, bits)
    assert rows.codes.abs().max() == 2 ** (bits - 1) - 1
    out = int8_linear(rows.codes, rows.scale, columns.codes, columns.scale, bias, torch.float64)
    by_integers = rows.codes.long() @ columns.codes.long().T
    expected = by_integers.double() * rows.scale[:, None] * columns.scale + bias
    assert torch.equal(out.value, expected) and out.path == "reference"
    step = rows.scale[:, None].max() / 2
    assert (rows.codes * rows.scale[:, None] - x).abs().max() <= step * (1 + 1e-12)


@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
@pytest.mark.parametrize("group", [16, 64])
def test_w4_linear_equals_expanding_first(m: int, k: int, n: int, group: int) -> None:
    codes = torch.randint(-7, 8, (n, k), generator=torch.Generator().manual_seed(3)).to(torch.int8)
    scale = drawn(n, -(-k // group), seed=4).abs()
    x, bias = drawn(m, k), drawn(n, seed=5)
    weight = torch.stack([codes[:, j] * scale[:, j // group] for j in range(k)], dim=1)
    out = w4_linear(x, packing.pack(codes, 4), scale, group, bias)
    torch.testing.assert_close(out.value, x @ weight.T + bias, rtol=1e-13, atol=1e-13)


def test_zero_rows_and_half_types() -> None:
    rows = quantize_rows(torch.zeros(2, 7))
    assert rows.codes.eq(0).all() and rows.scale.eq(1).all()
    half = quantize_rows(drawn(3, 40).to(torch.bfloat16))
    assert half.scale.dtype == torch.float32


def test_paths_are_said_and_never_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2, 4)
    assert quantize_rows(x, path="auto").path == "reference"
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError, match="Triton path cannot run"):
        quantize_rows(x, path="triton")
    with pytest.raises(ValueError, match="auto, reference or triton"):
        paths.choose("fast", x)  # type: ignore[arg-type]


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        quantize_rows(torch.ones(3))
    with pytest.raises(ValueError, match="needs 4 bytes and 1 scales"):
        w4_linear(torch.ones(1, 8), torch.zeros(2, 3, dtype=torch.uint8), torch.ones(2, 1), 64)
