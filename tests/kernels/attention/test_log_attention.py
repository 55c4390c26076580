from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kernels.attention import log_attention as attention
from kernels.attention.log_attention import log_attention
from kernels.tuned.configs import Config

# heads, queries, keys, channels, channels of values
SHAPES = [(2, 40, 77, 40, 40), (1, 5, 9, 8, 12), (3, 64, 64, 64, 64)]
FEW_PROGRAMS = [(2, 20, 77, 40, 40), (1, 5, 9, 8, 12), (1, 32, 64, 64, 64)]
"""For the interpreter: the same edges and loops, in a third of the programs."""


def drawn(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> tuple[torch.Tensor, ...]:
    heads, queries, keys, d, dv = shape
    generator = torch.Generator().manual_seed(sum(shape))
    sizes = [(2, heads, queries, d), (2, heads, keys, d), (2, heads, keys, dv)]
    return tuple((torch.randn(s, generator=generator) * 1.5).to(dtype).to(device) for s in sizes)


def check(device: str, shapes: list[tuple[int, ...]] = FEW_PROGRAMS) -> None:
    """Kernel against reference; rounding at the edge of a code may differ in single precision."""
    for shape in shapes:
        for dtype, tolerance in ((torch.bfloat16, 1e-2), (torch.float16, 3e-3), (torch.float32, 2e-3)):
            q, k, v = drawn(shape, dtype, device)
            for sink, bits, octaves, keep in ((None, 4, None, False), (0, 4, 7.0, True), (3, 6, 10.0, False)):
                if octaves is not None and dtype == torch.bfloat16:
                    tolerance = 1.5e-2
                options = {"bits": bits, "octaves": octaves, "sink": sink, "keep_sums": keep}
                exact = log_attention(q, k, v, path="reference", **options).value.double()
                ours = log_attention(q, k, v, path="triton", config=Config(16, 32, 16, 2, 4), **options)
                apart = ((ours.value.double() - exact).norm() / exact.norm()).item()
                assert apart < tolerance and ours.path == "triton", (shape, dtype, options, apart)
            if dtype != torch.float16:
                in_float8(q, k, v, tolerance)
        image_by_image(q, k, v)
        q[0, 0, 0, 0] = float("nan")
        out = log_attention(q, k, v, path="triton", config=Config(16, 32, 16, 2, 4)).value
        assert out[0].isnan().all() and not out[1].isnan().any()


def in_float8(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tolerance: float) -> None:
    """Both products in float8: the kernel does what the reference does with rounded tensors."""
    for sink, keep in ((None, False), (3, True)):
        options = {"sink": sink, "keep_sums": keep, "float8": True}
        exact = log_attention(q, k, v, path="reference", **options).value.double()
        ours = log_attention(q, k, v, path="triton", config=Config(16, 32, 16, 2, 4), **options)
        apart = ((ours.value.double() - exact).norm() / exact.norm()).item()
        assert apart < 2 * tolerance and ours.path == "triton", (q.shape, q.dtype, options, apart)


def image_by_image(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """More heads than a launch has: the same bytes."""
    for float8 in (False, True):
        options = {"sink": 1, "float8": float8, "path": "triton", "config": Config(16, 32, 16, 2, 4)}
        whole = log_attention(q, k, v, **options).value
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(attention, "MOST_HEADS", q.shape[1])
            assert torch.equal(log_attention(q, k, v, **options).value, whole)


def test_interpreted(interpreted: Callable[[str], None]) -> None:
    interpreted(__file__)


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES)
def test_compiled(shape: tuple[int, ...]) -> None:
    check("cuda", [shape])


def test_many_bits_are_exact_attention() -> None:
    q, k, v = (t.double().float() for t in drawn(SHAPES[1], torch.float32, "cpu"))
    out = log_attention(q, k, v, bits=8, octaves=12.0).value
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert ((out - exact).norm() / exact.norm()) < 0.03
    out = log_attention(q, k, v, bits=8, octaves=12.0, scale=0.05).value
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.05)
    assert ((out - exact).norm() / exact.norm()) < 0.03


def test_float8_probabilities_are_exact_and_values_near() -> None:
    """Keys that are all alike leave nothing to round but the values: 3 significant bits and their scale."""
    q, _, v = drawn(SHAPES[2], torch.float32, "cpu")
    k = torch.ones_like(q)
    out, exact = (log_attention(q, k, v, float8=float8).value for float8 in (True, False))
    assert 1e-3 < ((out - exact).norm() / exact.norm()) < 0.04
    with pytest.raises(ValueError, match="float8 takes 2 to 4 bits in steps of one octave, got 5 bits"):
        log_attention(q, k, v, bits=5, float8=True)
    with pytest.raises(ValueError, match=r"got 4 bits over 12\.0"):
        log_attention(q, k, v, octaves=12.0, float8=True)


def test_an_image_alone_and_in_a_batch_is_the_same() -> None:
    q, k, v = drawn(SHAPES[0], torch.float32, "cpu")
    both = log_attention(q, k, v, sink=0).value
    alone = log_attention(q[1:], k[1:], v[1:], sink=0).value
    torch.testing.assert_close(both[1:], alone)


def test_bad_input_is_named() -> None:
    q, k, v = drawn(SHAPES[1], torch.float32, "cpu")
    with pytest.raises(ValueError, match=r"\(B, H, Q, D\), \(B, H, K, D\)"):
        log_attention(q[0], k, v)
    with pytest.raises(ValueError, match="one of 9 keys, got 9"):
        log_attention(q, k, v, sink=9)
    with pytest.raises(ValueError, match="bits must be"):
        log_attention(q, k, v, bits=1)
