"""Steps are AdamW's and plain SGD's by their formulas; what an optimizer's state is after a file."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from quant.training.optimize import Group, Optimizer, Rules


@pytest.mark.parametrize("fused", [True, False])
def test_a_fused_optimizer_counts_steps_where_its_parameters_are(fused: bool) -> None:
    parameter = nn.Parameter(torch.zeros(3, device="meta"))
    optimizer = Optimizer([Group({"a": parameter}, 0.1)], Rules(), 10)
    optimizer.torch.param_groups[0]["fused"] = fused
    tensors = {
        "parameter.a": torch.ones(3), "moment.step.a": torch.tensor(4.0), "moment.exp_avg.a": torch.ones(3)
    }  # fmt: skip
    optimizer.load(tensors, {"rates": [0.1], "schedule": {}})
    state = optimizer.torch.state[parameter]
    assert state["exp_avg"].device.type == "meta"
    assert state["step"].device.type == ("meta" if fused else "cpu")


def test_moments_lie_as_their_parameters_do() -> None:
    """A file holds them in plain order; a fused kernel takes both by their places in memory."""
    parameter = nn.Parameter(torch.rand(4, 3, 2, 2).contiguous(memory_format=torch.channels_last))
    optimizer = Optimizer([Group({"a": parameter}, 0.1)], Rules(), 10)
    parameter.square().sum().backward()
    optimizer.step()
    moment = optimizer.torch.state[parameter]["exp_avg"].clone()
    tensors, values = optimizer.save()
    optimizer.load({name: tensor.contiguous() for name, tensor in tensors.items()}, values)
    loaded = optimizer.torch.state[parameter]["exp_avg"]
    assert torch.equal(loaded, moment) and loaded.stride() == parameter.stride()


def by_hand(rules: Rules, rate: float, decay: float, count: int, gradient) -> list[float]:
    """One parameter from 1 by AdamW (Loshchilov and Hutter 2019, algorithm 2), in Python's numbers."""
    w, m, v, found = 1.0, 0.0, 0.0, []
    first, second = rules.betas
    for step in range(count):
        if step < rules.warm_up:
            share = (step + 1) / rules.warm_up
        else:
            done = (step - rules.warm_up) / (count - rules.warm_up)
            share = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 + 0.5 * math.cos(math.pi * done)}[
                rules.schedule
            ]
        g = gradient(w, step)
        if rules.clip is not None:
            g *= min(1.0, rules.clip / abs(g))
        m, v = first * m + (1 - first) * g, second * v + (1 - second) * g * g
        w -= share * rate * decay * w
        unbiased = m / (1 - first ** (step + 1)), math.sqrt(v / (1 - second ** (step + 1)))
        w -= share * rate * unbiased[0] / (unbiased[1] + 1e-8)
        found.append(w)
    return found


@pytest.mark.parametrize("rules", [
    Rules(), Rules("linear"), Rules("cosine"), Rules("cosine", warm_up=2, clip=1.0, betas=(0.9, 0.95)),
])  # fmt: skip
def test_steps_are_adamw_with_warm_up_schedule_decay_and_clip(rules: Rules) -> None:
    parameter = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer, found = Optimizer([Group({"a": parameter}, 0.05, decay=0.2)], rules, 8), []
    for step in range(8):  # gradients on both sides of the clip
        (0.5 * (step % 3 + 0.2) * parameter.square()).sum().backward()
        norm = optimizer.step()
        assert (norm is None) == (rules.clip is None)
        found.append(parameter.item())
    wanted = by_hand(rules, 0.05, 0.2, 8, lambda w, step: (step % 3 + 0.2) * w)
    assert found == pytest.approx(wanted, rel=1e-9)


def test_what_is_forgotten_begins_anew_and_the_rest_goes_on() -> None:
    a, b = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    optimizer = Optimizer([Group({"a": a, "b": b}, 0.1)], Rules(), 10)
    for gradient in (1.0, 1.0, 1.0, -1.0):
        if gradient < 0:
            before = a.item(), b.item()
            optimizer.forget({"a"})
        (gradient * (a + b)).sum().backward()
        optimizer.step()
    assert a.item() - before[0] == pytest.approx(0.1, rel=1e-6)  # Adam's first step is the whole rate
    assert b.item() < before[1]  # three steps' momentum
