"""Shrinkage by spatial frequency: closed forms."""

from __future__ import annotations

import torch

from quant.training.detail import _cosines, shrinkage


def test_the_transform_keeps_lengths_and_constants_are_of_frequency_zero() -> None:
    x = torch.randn(2, 3, 8, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(_cosines(x).square().sum((-1, -2)), x.square().sum((-1, -2)), rtol=1e-4)
    flat = _cosines(torch.ones(1, 1, 8, 16))
    assert float(flat[0, 0, 0, 0].square()) > 0.999 * 8 * 16


def test_a_weaker_picture_costs_its_share_and_noise_beside_it_costs_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    true, other = (torch.randn(4, 8, 16, 16, generator=generator) for _ in range(2))
    power = true.square().flatten(1).mean(1)
    torch.testing.assert_close(shrinkage(0.9 * true, true), 0.01 * power, rtol=1e-3, atol=1e-6)
    assert (shrinkage(true + 0.1 * other, true) < 0.02 * 0.01 * power).all()


def test_it_is_as_exact_where_forwards_are_in_bfloat16() -> None:
    true = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = shrinkage(0.999 * true, true)
    assert torch.equal(found, shrinkage(0.999 * true, true))


def test_faded_detail_costs_though_the_rest_is_there() -> None:
    smooth = torch.cos(torch.arange(16) * torch.pi / 16 + torch.pi / 32).repeat(16, 1)[None, None]
    fine = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    kept, faded = shrinkage(smooth + fine, smooth + fine), shrinkage(smooth + 0.5 * fine, smooth + fine)
    assert kept < 1e-6 and faded > 0.1
