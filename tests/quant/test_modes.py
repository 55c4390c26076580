"""Constants kept for the process: the same tensors whoever asked first, in whatever mode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import quant
from quant.formats.floats import FloatGrid
from quant.formats.granularity import Granularity
from quant.formats.grids import Grid
from quant.formats.logs import LogGrid
from quant.formats.quantizer import Quantizer
from quant.formats.rounding import table_on
from quant.layers.rotations import Rotate, chain_matrix, orthogonal, random_signs
from quant.methods.svdquant.formats import FOUR
from quant.modes import kept, make_ordinary_, ordinary_mode

CACHES = (orthogonal, chain_matrix, random_signs)


def rotations(count: int) -> list[nn.Module]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1)).to(torch.int16)
    return [
        Rotate(count), Rotate(count, seed=3, signed=True),
        Rotate(count, order=order, block=16, moves=([3, 0], [5]), seed=4),
    ]  # fmt: skip


@pytest.fixture
def empty() -> None:
    for cache in CACHES:
        cache.store.clear()


def inference(part: nn.Module, x: Tensor) -> None:
    with torch.inference_mode():
        part(x)


def exported(part: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        torch.export.export(part, (x,), strict=False)


def fake(part: nn.Module, x: Tensor) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        part(torch.empty_like(x))


def no_grad(part: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        part(x)


@pytest.mark.parametrize("first", [inference, exported, fake, no_grad])
def test_a_backward_works_whoever_came_first(first: Callable[[nn.Module, Tensor], None], empty) -> None:
    x = torch.randn(3, 48)
    for part in rotations(48):
        first(part, x)
    kept_tensors = [tensor for cache in CACHES for tensor in cache.store.values()]
    assert all(type(tensor) is Tensor and not tensor.is_inference() for tensor in kept_tensors)
    for part in rotations(48):
        given = x.clone().requires_grad_(True)
        part(given).square().sum().backward()
        torch.testing.assert_close(given.grad, 2 * x, rtol=1e-4, atol=1e-4)  # orthogonal


def test_quantizing_after_an_export_in_one_process(empty) -> None:
    torch.manual_seed(0)
    model, again, x = nn.Sequential(nn.Linear(48, 20)), nn.Sequential(nn.Linear(48, 20)), torch.randn(3, 48)
    again.load_state_dict(model.state_dict())
    part = Rotate(48, seed=1, signed=True)
    exported(part, x)
    inference(part, x)
    with torch.inference_mode():
        quant.quantize_(model, "rtn-w4a4")
    quant.quantize_(again, "rtn-w4a4")
    given = x.clone().requires_grad_(True)
    assert torch.equal(model(given), again(x))
    model(given).sum().backward()
    assert all(not t.is_inference() for t in model[0].buffers())


def test_only_the_last_results_are_kept() -> None:
    calls: list[int] = []

    @kept(2)
    def constant(value: int) -> Tensor:
        calls.append(value)
        return torch.tensor([value])

    assert [int(constant(v)) for v in (1, 2, 1, 3, 1)] == [1, 2, 1, 3, 1]
    assert calls == [1, 2, 3, 1] and len(constant.store) == 2


def test_what_inference_mode_made_becomes_ordinary() -> None:
    with torch.inference_mode():
        layer = nn.BatchNorm2d(3)
        with ordinary_mode():
            assert not torch.ones(1).is_inference()
    assert layer.running_mean.is_inference() and layer.weight.is_inference()
    make_ordinary_(layer)
    assert not any(t.is_inference() for t in [*layer.parameters(), *layer.buffers()])
    assert not torch.is_inference_mode_enabled()
    with torch.no_grad(), ordinary_mode():
        assert not torch.is_grad_enabled()  # outside inference mode nothing changes


@pytest.mark.parametrize("mode", [torch.inference_mode, partial(FakeTensorMode, allow_non_fake_inputs=True)])
@pytest.mark.parametrize("grid", [FOUR, FloatGrid(exponent=2, mantissa=1), LogGrid(bits=4, octaves=7)])
def test_values_of_codes_are_ordinary_whoever_came_first(grid: Grid, mode: Callable[[], Any]) -> None:
    table_on.store.clear()
    quantizer = Quantizer(grid=grid, granularity=Granularity(kind="tensor"))
    with mode():
        x = torch.ones(2, 8)
        grid.decode(*quantizer.encode(x, "linear_weight"), torch.float32)
    codes, params = quantizer.encode(torch.randn(2, 8), "linear_weight")
    assert grid.decode(codes, params, torch.float32).isfinite().all()
    assert all(type(tensor) is Tensor and not tensor.is_inference() for tensor in table_on.store.values())
