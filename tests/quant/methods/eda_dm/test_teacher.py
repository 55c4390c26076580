"""The teacher's outputs: what is kept is what a forward gives, and what does not fit is run again."""

from __future__ import annotations

import torch
from torch import nn

from quant.methods.eda_dm import teacher as module
from quant.methods.eda_dm.teacher import Teacher
from quant.training.blocks import Inputs


def unit(points: int) -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 6))
    x = torch.randn(points, 3, 6)
    return block, Inputs([(((rows,), {}), len(rows)) for rows in x.split(4)], (((x[:1],), {}), 1))


def test_kept_outputs_are_those_of_a_forward(monkeypatch) -> None:
    block, inputs = unit(10)
    kept = Teacher(block, ["0", "2"], inputs, 4)
    monkeypatch.setattr(module, "LIMIT", 100)
    again = Teacher(block, ["0", "2"], inputs, 4)
    assert kept.kept is not None and again.kept is None
    index = torch.tensor([7, 0, 9])
    (output, layers), (wanted, others) = kept(index), again(index)
    torch.testing.assert_close(output, wanted)
    assert layers.keys() == others.keys() == {"0", "2"}
    for name, rows in layers.items():
        torch.testing.assert_close(rows, others[name])
    assert not output.requires_grad
    with torch.no_grad():  # a copy: what is trained later does not move the teacher
        block[0].weight.zero_()
    torch.testing.assert_close(kept(index)[0], again(index)[0])


def test_outputs_without_a_row_for_each_point_are_not_kept() -> None:
    block, inputs = unit(8)
    flat = nn.Sequential(nn.Flatten(0, 1), nn.Linear(6, 6))
    assert Teacher(flat, ["1"], inputs, 4).kept is None
    assert Teacher(block, ["0"], inputs, 4).kept is not None
