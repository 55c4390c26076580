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


def test_a_clock_reads_each_call_anew() -> None:
    """By place or by name; layers with equal tables ask once a call, and never get the last one's answer."""
    clock, every, later = Clock(), STEPS, STEPS[2:]
    for step in (3, 17, 17, 5):
        clock.hook(nn.Identity(), (torch.zeros(2, 4), STEPS[step].expand(2)), {})
        for table, row in ((every, step), (later, step - 2), (every, step)):
            assert clock.rows(EXACT, table, tuple(table.tolist())) == [row, row]
        assert clock.samples == 2
    with pytest.raises(quant.InputError, match="timestep 63 is not in"):
        EXACT.rows(read(torch.tensor([63])), STEPS)  # integers are not rounded
    for name in ("sample", "hidden_states"):
        clock.hook(nn.Identity(), (), {name: torch.zeros(6, 4), "timestep": STEPS[:3]})
        assert clock.samples == 6 and clock.rows(EXACT, every, tuple(every.tolist())) == [0, 1, 2]
        assert clock.shares(3, 6) == (2, 1) and clock.shares(3, 24) == (2, 4) and clock.shares(2, 6) == (3, 1)
        for timesteps, count in ((3, 7), (4, 6)):
            with pytest.raises(quant.InputError, match="which cannot be told apart"):
                clock.shares(timesteps, count)
    clock.hook(nn.Identity(), (), {"timestep": STEPS[:3]})
    assert clock.samples is None and clock.shares(3, 6) == (2, 1)
    fresh = Clock()
    with pytest.raises(quant.InputError, match="called without a timestep"):
        fresh.now()
