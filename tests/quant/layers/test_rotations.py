"""Rotations by small factors and in blocks: orthogonal, exact under a product, the same after a reload."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from quant.layers.rotations import LARGEST, Rotate, factors_of, hadamard, index_dtype, kronecker


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("order", [1, 2, 4, 12, 20, 24, 28, 36, 44, 60, 128])
def test_hadamard_matrices_are_hadamard(order: int) -> None:
    matrix = hadamard(order)
    assert set(matrix.flatten()) <= {-1.0, 1.0}
    assert (matrix @ matrix.T == order * torch.eye(order).numpy()).all()


def test_orders_without_a_construction_are_refused() -> None:
    with pytest.raises(ValueError, match="order 6"):
        hadamard(6)
    assert factors_of(2 * 257) is None and factors_of(257 * 4) is None and LARGEST == 256
    with pytest.raises(ValueError, match="514 channels"):
        Rotate(514)


@pytest.mark.parametrize("count", [5, 64, 72, 131, 192, 288, 1152])
def test_kronecker_is_orthogonal(count: int) -> None:
    factors = factors_of(count)
    assert math.prod(points for _, points in factors) == count
    matrix = kronecker(torch.eye(count, dtype=torch.float64), factors)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(count, dtype=torch.float64), rtol=0, atol=1e-12)
    if all(kind == "hadamard" for kind, _ in factors):
        torch.testing.assert_close(matrix.abs(), torch.full_like(matrix, count**-0.5), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        kronecker(kronecker(matrix, factors), factors, True), matrix, rtol=0, atol=1e-12
    )
    small = kronecker(torch.eye(count), factors)
    torch.testing.assert_close(small.T @ small, torch.eye(count), rtol=0, atol=1e-5)


def parts(count: int, axis: int = -1) -> dict[str, Rotate]:
    factor = rand(count, seed=3).abs() + 0.1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(5)).to(torch.int16)
    moves = ([3, 0, 7], [5, 2])
    return {
        "hadamard": Rotate(count, axis),
        "smooth hadamard": Rotate(count, axis, factor),
        "signed hadamard": Rotate(count, axis, factor, seed=3, signed=True),
        "blocks": Rotate(count, axis, None, order, block=16, moves=moves, seed=1),
        "smooth blocks": Rotate(count, axis, factor, order, block=16, moves=moves, seed=1),
    }


@pytest.mark.parametrize("kind", list(parts(48)))
def test_product_is_unchanged(kind: str) -> None:
    part, x, weight = parts(48)[kind], rand(20, 48), rand(30, 48, seed=1)
    torch.testing.assert_close(part(x) @ part.to_weight(weight).T, x @ weight.T, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(part.from_weight(part.to_weight(weight)), weight, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(part(x), x)


@pytest.mark.parametrize("kind", list(parts(48)))
def test_convolution_is_unchanged(kind: str) -> None:
    part, x, weight = parts(48, 1)[kind], rand(2, 48, 6, 6), rand(8, 48, 3, 3, seed=1)
    plain = nn.functional.conv2d(x, weight, padding=1, stride=2)
    turned = nn.functional.conv2d(part(x), part.to_weight(weight), padding=1, stride=2)
    torch.testing.assert_close(turned, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [32767, 32768, 32769, 40960])
def test_a_permutation_is_stored_in_integers_that_hold_it(count: int) -> None:
    kept = torch.arange(count).to(index_dtype(count))
    assert torch.equal(kept.long(), torch.arange(count))
    assert index_dtype(count).itemsize == (2 if count <= 32768 else 4)


def test_signs_keep_a_common_mean_from_becoming_an_outlier() -> None:
    """The first row of a Hadamard matrix is constant: without signs it adds up what all channels share."""
    x = torch.randn(256, 192, generator=torch.Generator().manual_seed(0)).abs()
    plain, signed = Rotate(192), Rotate(192, seed=1, signed=True)
    assert float(plain(x).abs().amax()) > 2 * float(signed(x).abs().amax())
    again = Rotate.blank(signed.spec())
    assert torch.equal(again(x), signed(x))
    assert torch.equal(Rotate.blank({k: v for k, v in plain.spec().items() if k != "signed"})(x), plain(x))
