"""What is kept of finished layers is what was put in, to the bit."""

from __future__ import annotations

from pathlib import Path

import torch

from quant.formats.quantizer import int_quantizer
from quant.layers.attachments import LowRank, Smooth
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.plans.layer import LayerPlan
from quant.training.running.finished import keep, kept
from quant.training.state import State


def test_everything_of_a_result_comes_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state, format_ = State(tmp_path / "s"), int_quantizer(4, "channel")
    weight = EncodedWeight.from_weight(torch.randn(6, 8), format_, "linear_weight")
    full = LayerResult(
        weight, None, {"scale": torch.rand(2, 1)}, torch.tensor([3.0, 9.0]), Smooth(torch.rand(8), shift=0.5),
        LowRank(torch.randn(2, 8), torch.randn(6, 2)), torch.randn(6), {"alpha": 0.1}, 12.5,
    )  # fmt: skip
    lines = [
        LayerPlan(name=n, kind="Linear", shape=(6, 8), weight=format_, bytes_before=192, bytes_after=1)
        for n in ("a.b", "c")
    ]
    keep(state, {"a.b": full, "c": LayerResult(weight)})
    then = torch.rand(3)
    found = kept(state, lines)
    assert found is not None and list(found) == ["a.b", "c"]
    assert torch.equal(torch.rand(3), then)  # what comes next is drawn as if nothing had stopped
    a, c = found["a.b"], found["c"]
    assert torch.equal(a.weight.decode(), weight.decode()) and torch.equal(c.weight.decode(), weight.decode())
    assert a.transform.shift == 0.5 and torch.equal(a.transform.factor, full.transform.factor)
    assert torch.equal(a.branch.weight(), full.branch.weight()) and torch.equal(a.bias, full.bias)
    assert torch.equal(a.timesteps, full.timesteps) and a.activation_params.keys() == {"scale"}
    assert (a.notes, a.sqnr_db) == (full.notes, full.sqnr_db)
    assert (c.transform, c.branch, c.bias, c.timesteps, c.sqnr_db) == (None, None, None, None, None)
    assert kept(state, lines[:1]) is None and kept(None, lines) is None and kept(State(), lines) is None
