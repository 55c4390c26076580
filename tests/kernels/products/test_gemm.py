from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kernels.products.gemm import gemm
from kernels.tuned.configs import Config

SHAPES = [(64, 128, 64), (5, 123, 33), (70, 48, 72), (1, 7, 65)]
CONFIGS = [Config(32, 32, 64, 3, 4, group_m=2, queued=True), Config(32, 32, 64, 3, 4, halves=2)]
GPU_CONFIGS = [Config(128, 128, 128, 3, 8), Config(128, 256, 128, 3, 8, halves=2), Config(64, 64, 128, 3, 4)]
TOLERANCES = [(torch.bfloat16, 6e-3), (torch.float32, 1e-6), (torch.float16, 1e-3)]


def operands(m: int, k: int, n: int, fp8: bool, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(m + k)
    if fp8:
        a, b = (torch.randn(size, k, generator=generator).to(torch.float8_e4m3fn) for size in (m, n))
    else:
        a, b = (torch.randint(-127, 128, (s, k), generator=generator, dtype=torch.int8) for s in (m, n))
    return a.to(device), b.to(device)


def distance(out: torch.Tensor, exact: torch.Tensor) -> float:
    return ((out.double() - exact.double()).norm() / exact.double().norm().clamp(min=1e-30)).item()


Shapes = list[tuple[int, int, int]]


def check(device: str, shapes: Shapes = SHAPES, kinds: tuple[bool, ...] = (False, True)) -> None:
    """Kernel against reference: int8 sums exact, float8 within what its accumulators keep."""
    generator = torch.Generator().manual_seed(1)
    for place, (m, k, n) in enumerate(shapes):
        row, column = (torch.rand(size, generator=generator).to(device) * 1e-2 for size in (m, n))
        bias = torch.randn(n, generator=generator).to(device)
        low, up = (torch.randn(size, 40, generator=generator).bfloat16().to(device) for size in (m, n))
        for fp8 in kinds:
            a, b = operands(m, k, n, fp8, device)
            for branch in ((None, None), (low, up)):
                for turn, config in enumerate(CONFIGS if device == "cpu" else GPU_CONFIGS):
                    # interpreted, every pair of shape, kind, branch, config and type in turn
                    turn += place + fp8 + (branch[0] is not None)
                    dtype, tolerance = TOLERANCES[turn % 3 if device == "cpu" else 0]
                    exact = gemm(a, row, b, column, bias, *branch, dtype, path="reference").value
                    out = gemm(a, row, b, column, bias, *branch, dtype, path="triton", config=config)
                    if fp8 and device != "cpu":
                        tolerance = max(tolerance, 1e-3)
                    found = distance(out.value, exact)
                    assert out.path == "triton" and found < tolerance, (m, k, n, fp8, config, dtype, found)
                again = gemm(a, row, b, column, bias, *branch, path="triton", config=config).value
                once = gemm(a, row, b, column, bias, *branch, path="triton", config=config).value
                assert torch.equal(again, once)
            finished(a, row, b, column, bias, device)
        row[0] = float("nan")
        out = gemm(a, row, b, column, bias, path="triton").value
        assert out[0].isnan().all() and not out[1:].isnan().any()
    assert gemm(a[:0], row[:0], b, column, path="triton").value.shape == (0, n)


def finished(
    a: torch.Tensor, row: torch.Tensor, b: torch.Tensor, column: torch.Tensor, bias: torch.Tensor, device: str
) -> None:
    """Activation, residual and codes of the next layer, after the product."""
    generator = torch.Generator().manual_seed(2)
    residual = torch.randn(len(a), 2 * len(b), generator=generator).bfloat16().to(device)[:, : len(b)]
    steps = (torch.rand(len(a), generator=generator) * 0.05 + 0.02).to(device)
    for config in (CONFIGS if device == "cpu" else GPU_CONFIGS)[:2]:
        for activation in ("gelu", "gelu_tanh", "silu"):
            options = {"activation": activation, "residual": residual, "dtype": torch.float32}
            exact = gemm(a, row, b, column, bias, path="reference", **options).value
            out = gemm(a, row, b, column, bias, path="triton", config=config, **options).value
            assert distance(out, exact) < (1e-3 if device != "cpu" else 1e-5), (activation, config)
        for dtype in (torch.int8, torch.float8_e4m3fn):
            options = {"dtype": dtype, "out_scale": steps}
            exact = gemm(a, row, b, column, bias, path="reference", **options).value
            out = gemm(a, row, b, column, bias, path="triton", config=config, **options).value
            assert out.dtype == dtype and distance(out.float(), exact.float()) < 4e-3, (dtype, config)


def test_interpreted(interpreted: Callable[[str], None]) -> None:
    interpreted(__file__)


@pytest.mark.gpu
@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("shape", [(5, 123, 33), (300, 1040, 520), (257, 3072, 384)])
def test_compiled(shape: tuple[int, int, int], fp8: bool) -> None:
    check("cuda", [shape], (fp8,))


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(300, 1040, 520), (2, 64, 64), (257, 3072, 384)])
def test_queued_products_are_the_same_bytes(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b = operands(m, k, n, False, "cuda")
    row, column = (torch.rand(size, device="cuda") * 1e-2 for size in (m, n))
    row[0] = float("nan")
    residual = torch.randn(m, 2 * n, device="cuda").bfloat16()[:, :n]
    factors = [torch.randn(size, 32, device="cuda").bfloat16() for size in (m, n)]
    for bias in (None, torch.randn(n, device="cuda").bfloat16()):
        for dtype in (torch.bfloat16, torch.float16):
            for low, up, more in (
                (None, None, None),
                (*factors, None),
                (None, None, residual),
                (*factors, residual),
            ):
                arguments = (a, row, b, column, bias, low, up, dtype, "triton")
                plain = gemm(*arguments, Config(64, 64, 128, 3, 4), residual=more).value
                for config in (
                    Config(128, 256, 64, 6, 8, queued=True), Config(256, 128, 64, 6, 8, queued=True),
                    Config(128, 128, 128, 5, 4, queued=True),
                ):  # fmt: skip
                    queued, again = (gemm(*arguments, config, residual=more).value for _ in range(2))
                    assert torch.equal(queued.view(torch.int16), again.view(torch.int16))
                    assert queued[0].isnan().all() and not queued[1:].isnan().any()
                    if low is None:
                        assert torch.equal(queued[1:], plain[1:]), (config, dtype)
                    assert distance(queued[1:], plain[1:]) < 4e-3, (config, dtype)


@pytest.mark.parametrize("k", [1, 123, 2048])
def test_reference_is_exact_in_float64(k: int) -> None:
    a, b = operands(6, k, 9, False, "cpu")
    row, column, bias = torch.rand(6).double(), torch.rand(9).double(), torch.randn(9).double()
    out = gemm(a, row, b, column, bias, dtype=torch.float64, path="reference")
    by_integers = (a.long() @ b.long().T).double() * row[:, None] * column + bias
    assert torch.equal(out.value, by_integers) and out.path == "reference"


def test_bad_input_is_named() -> None:
    a, b = operands(4, 32, 8, False, "cpu")
    row, column = torch.ones(4), torch.ones(8)
    with pytest.raises(ValueError, match="both operands must be int8"):
        gemm(a.float(), row, b, column)
    with pytest.raises(ValueError, match=r"\(M, K\) and \(N, K\), got \(4, 32\) and \(8, 16\)"):
        gemm(a, row, b[:, :16], column)
    with pytest.raises(ValueError, match=r"row_scale must have shape \(4,\), got \(3,\)"):
        gemm(a, row[:3], b, column)
    with pytest.raises(ValueError, match=r"float32, got torch\.bfloat16"):
        gemm(a, row.bfloat16(), b, column)
    with pytest.raises(ValueError, match="belong together"):
        gemm(a, row, b, column, low=torch.ones(4, 16).bfloat16())
    with pytest.raises(ValueError, match="overflow int32"):
        gemm(a.repeat(1, 5000), row, b.repeat(1, 5000), column)
    with pytest.raises(ValueError, match="activation must be one of none, gelu"):
        gemm(a, row, b, column, activation="relu")
    with pytest.raises(ValueError, match=r"residual must be a float \(4, 8\)"):
        gemm(a, row, b, column, residual=torch.ones(4, 7))
    with pytest.raises(ValueError, match="out_scale belongs to int8"):
        gemm(a, row, b, column, dtype=torch.int8)
    with pytest.raises(ValueError, match="neighbours"):
        gemm(a.T[:4, :4], row, b[:, :4], column)


def test_tiles_fit_the_shared_memory() -> None:
    pytest.importorskip("triton")
    from kernels.tuned.launching import within

    large = Config(128, 256, 128, 3, 8)
    assert within(large, 2, 230_000) == large
    wide = within(large, 4, 230_000)
    assert wide.halves == 2 and wide.stages == 3
    for limit in (99_000, 164_000, 230_000):
        for config in (
            large,
            Config(128, 256, 128, 3, 4, special=True),
            Config(256, 128, 128, 4, 8, halves=2),
        ):
            found = within(config, 4, limit)
            taken = found.stages * (found.block_m + found.block_n) * found.block_k
            assert taken + found.block_m * found.block_n // found.halves * 4 <= limit, (config, limit)


@pytest.mark.gpu
@pytest.mark.parametrize("fp8", [False, True])
def test_large_outputs_in_single_precision(fp8: bool) -> None:
    a, b = operands(2048, 256, 2100, fp8, "cuda")
    row, column = torch.ones(2048, device="cuda"), torch.ones(2100, device="cuda")
    exact = gemm(a, row, b, column, dtype=torch.float32, path="reference").value
    assert distance(gemm(a, row, b, column, dtype=torch.float32, path="triton").value, exact) < 1e-3
