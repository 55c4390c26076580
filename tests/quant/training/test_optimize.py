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
