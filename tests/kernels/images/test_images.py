"""Convolutions of codes, and group norms that write codes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kernels.images.conv2d import conv2d
from kernels.images.group_norm import group_norm, sample_scale
from kernels.rows.quantize import quantize
from kernels.tuned.configs import Config

# batch, height, width, channels in, out; kernel, stride, padding, dilation, down and across
CASES: list[tuple[tuple[int, ...], ...]] = [
    ((2, 8, 8, 32, 32), (3, 3), (1, 1), (1, 1), (1, 1)),
    ((1, 5, 9, 20, 9), (2, 3), (1, 2), (2, 1), (2, 3)),
    ((2, 9, 6, 16, 24), (1, 1), (1, 1), (0, 0), (1, 1)),
    ((1, 6, 20, 48, 16), (3, 2), (1, 1), (0, 1), (1, 1)),
]


def codes(*shape: int, fp8: bool, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    if fp8:
        return torch.randn(*shape, generator=generator).to(torch.float8_e4m3fn).to(device)
    return torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8).to(device)


def check(device: str) -> None:
    """Kernels against references."""
    for case in CASES:
        for fp8 in (False, True):
            convolution(case, fp8, device)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        norms(dtype, device)


def convolution(case: tuple[tuple[int, ...], ...], fp8: bool, device: str) -> None:
    (b, h, w, c, n), size, *pairs = case
    x, weight = codes(b, h, w, c, fp8=fp8, device=device), codes(n, *size, c, fp8=fp8, device=device)
    generator = torch.Generator().manual_seed(0)
    sample, column, bias = (torch.rand(s, generator=generator).to(device) * 1e-2 for s in (b, n, n))
    arguments = (x, sample, weight, column, bias, *pairs)
    exact = conv2d(*arguments, dtype=torch.float32, path="reference").value
    for config in (Config(32, 32, 32, 3, 4), Config(32, 32, 32, 3, 4, keep=True)):
        ours = conv2d(*arguments, dtype=torch.float32, path="triton", config=config)
        assert ours.path == "triton" and ours.value.shape == exact.shape
        apart = ((ours.value - exact).norm() / exact.norm()).item()
        assert apart < (1e-3 if fp8 and device != "cpu" else 1e-6), (case, fp8, config, apart)


def norms(dtype: torch.dtype, device: str) -> None:
    generator = torch.Generator().manual_seed(1)
    for hw, c, groups in ((150, 40, 4), (7, 96, 32)):
        x = (torch.randn(2, hw, c, generator=generator) * 3 + 40).to(dtype).to(device)
        weight, bias = (torch.randn(c, generator=generator).to(device) for _ in range(2))
        for silu in (False, True):
            exact = group_norm(x, groups, weight, bias, silu=silu, path="reference")
            ours = group_norm(x, groups, weight, bias, silu=silu, path="triton")
            torch.testing.assert_close(ours.gain, exact.gain, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(ours.offset, exact.offset, rtol=1e-4, atol=2e-3)
            for top, kind in ((127, "int_token"), (448, "e4m3_token")):
                scale = sample_scale(x, exact, top, "reference")
                torch.testing.assert_close(sample_scale(x, exact, top, "triton"), scale, rtol=1e-2, atol=0)
                options = {"bits": 8, "before": exact, "scale": scale}
                left = quantize(x.flatten(0, 1), kind, path="reference", **options)
                right = quantize(
                    x.flatten(0, 1), kind, path="triton", **options, config=Config(16, 1, 64, 3, 4)
                )
                assert (left.codes.float() - right.codes.float()).norm() < 2e-2 * left.codes.float().norm()


def test_interpreted(interpreted: Callable[[str], None]) -> None:
    interpreted(__file__)


@pytest.mark.gpu
@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_compiled(case: tuple[int, ...], fp8: bool) -> None:
    convolution(case, fp8, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_compiled_norms(dtype: torch.dtype) -> None:
    norms(dtype, "cuda")


def test_group_norm_is_that_of_torch() -> None:
    x = torch.randn(2, 30, 24, generator=torch.Generator().manual_seed(2))
    weight, bias = torch.rand(24), torch.rand(24)
    before = group_norm(x, 4, weight, bias, 1e-5)
    exact = torch.nn.functional.silu(torch.nn.functional.group_norm(x.transpose(1, 2), 4, weight, bias, 1e-5))
    torch.testing.assert_close(before.reference(x.flatten(0, 1)).reshape(2, 30, 24), exact.transpose(1, 2))


def test_a_nan_makes_its_image_nan_and_no_other() -> None:
    x = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(3))
    x[1, 3, 2] = float("nan")
    before = group_norm(x, 2)
    scale = sample_scale(x, before, 127)
    rows = quantize(x.flatten(0, 1), "int_token", 8, before=before, scale=scale)
    image = rows.codes[:, :8].reshape(2, 4, 4, 8).contiguous()
    out = conv2d(
        image, scale, codes(4, 3, 3, 8, fp8=False, device="cpu"), torch.ones(4), padding=(1, 1)
    ).value
    assert out[1].isnan().all() and not out[0].isnan().any()


def test_bad_input_is_named() -> None:
    x, weight = codes(1, 4, 4, 16, fp8=False, device="cpu"), codes(8, 3, 3, 16, fp8=False, device="cpu")
    one, eight = torch.ones(1), torch.ones(8)
    with pytest.raises(ValueError, match=r"\(B, H, W, C\) and \(N, KH, KW, C\)"):
        conv2d(x, one, weight[..., :8].contiguous(), eight)
    with pytest.raises(ValueError, match="contiguous with channels last"):
        conv2d(x.permute(0, 2, 1, 3), one, weight, eight)
    with pytest.raises(ValueError, match=r"sample_scale must be float32 of shape \(1,\)"):
        conv2d(x, eight, weight, eight)
    with pytest.raises(ValueError, match="do not fall into 5 groups"):
        group_norm(torch.ones(1, 4, 8), 5)
