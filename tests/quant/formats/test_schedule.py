"""Timesteps as pipelines hand them over: rounded to the model's type, and in the model's own unit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import quant
from quant.formats.schedule import Clock, Schedule

STEPS = torch.linspace(50, 1000, 20)
EXACT = Schedule(kind="timestep")


def read(value: torch.Tensor | float, unit: float = 1.0):
    clock = Clock(unit)
    clock.hook(nn.Identity(), (), {"timestep": value})
    return clock.now()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_every_calibrated_step_is_found_in_any_dtype(dtype: torch.dtype, unit: float) -> None:
    table = STEPS + 0.37
    for row, step in enumerate(table):
        value = step.expand(2).to(dtype)
        value = value / unit if unit != 1 else value  # as Flux's pipeline does, in the latents' type
        assert value.dtype == dtype
        assert EXACT.rows(read(value, unit), table).tolist() == [row, row]
    assert EXACT.rows(read(50.37), table).tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_between_two_is_refused(dtype: torch.dtype) -> None:
    for value in (975.0, 725.0, 75.0):
        with pytest.raises(quant.InputError, match=r"timestep (97|7)"):
            EXACT.rows(read(torch.tensor([value]).to(dtype)), STEPS)
    with pytest.raises(quant.InputError, match="timestep 995"):
        EXACT.rows(read(torch.tensor([995.0])), STEPS)  # within bfloat16's reach, not within float32's
    assert EXACT.rows(read(torch.tensor([1000, 50])), STEPS).tolist() == [19, 0]  # integers are exact
