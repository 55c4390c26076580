"""What an optimizer's state is after a file."""

from __future__ import annotations

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
