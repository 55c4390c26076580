"""Parts beside a layer: factors that every type holds, and tensors that keep theirs when a model is cast."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from quant.formats.quantizer import int_quantizer
from quant.formats.schedule import Clock
from quant.layers.attachments import LowRank, Smooth, part_bytes, usable_factor
from quant.layers.encoded import EncodedWeight, LayerResult
from quant.layers.quantized import make
from quant.layers.rotations import Rotate
from quant.layers.sinks import SinkDrop, SinkRow


def test_factors_are_numbers_in_every_type() -> None:
    """A channel that calibration saw next to nothing of gave 0 / 0 once the model was cast to float16."""
    wild = torch.tensor([0.0, 1e-12, 2.0**-14, 3.0, 2.0**15, 1e9, torch.inf, torch.nan])
    factor = usable_factor(wild)
    assert torch.equal(factor, torch.tensor([1, 2.0**-14, 2.0**-14, 3, 2.0**15, 2.0**15, 1, 1]))
    part = Smooth(factor).half()
    x = torch.zeros(2, 8, dtype=torch.float16)
    x[1] = 0.5 * factor.half()
    assert torch.equal(part(x), torch.tensor([[0.0], [0.5]], dtype=torch.float16).expand(2, 8))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_cast_leaves_what_is_stored(kind: torch.dtype) -> None:
    """A branch of 16 bit doubled in files of models that were cast to float32; the ledger's bytes did not."""
    torch.manual_seed(0)
    original = nn.Linear(16, 8)
    order = torch.arange(16, dtype=torch.int16).flip(0)
    for transform in (
        Smooth(torch.rand(16).bfloat16() + 0.1),
        Rotate(16, -1, torch.rand(16) + 0.1, order, block=8, moves=([1], [2])),
    ):
        weight = EncodedWeight.from_weight(
            transform.to_weight(original.weight), int_quantizer(8, "channel"), "linear_weight"
        )
        branch = LowRank(torch.randn(2, 16).bfloat16(), torch.randn(8, 2).bfloat16())
        layer = make(original, LayerResult(weight, transform=transform, branch=branch), Clock())
        before = {name: tensor.clone() for name, tensor in layer.state_dict().items() if name != "bias"}
        size = part_bytes(transform) + part_bytes(branch)
        layer.to(kind)
        after = layer.state_dict()
        assert all(after[n].dtype == t.dtype and torch.equal(after[n], t) for n, t in before.items())
        assert size == part_bytes(transform) + part_bytes(branch)
        assert layer(torch.randn(3, 16, dtype=kind)).dtype == kind


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_cast_leaves_a_sink_what_it_is(kind: torch.dtype) -> None:
    """Its token and rows were rounded, and doubled or halved what the ledger says that a file takes."""
    torch.manual_seed(0)
    token, place, row, bias = torch.randn(16), torch.tensor([1]), torch.randn(8), torch.randn(8)
    for part in (SinkDrop(token.clone(), place.clone()), SinkRow(token.clone(), place, row, bias)):
        before, size = {name: t.clone() for name, t in part.state_dict().items()}, part_bytes(part)
        part.to(kind)
        after = part.state_dict()
        assert all(after[n].dtype == t.dtype and torch.equal(after[n], t) for n, t in before.items())
        assert part_bytes(part) == size
        x = torch.randn(2, 3, 16, dtype=kind)
        x[0, 1] = token.to(kind)  # one sink of two: the other sample has another token there
        found = part(x)
        assert found.dtype == kind
        if isinstance(part, SinkDrop):
            assert not found[0, 1].any() and torch.equal(found[1], x[1]) and torch.equal(found[0, 2], x[0, 2])
        else:
            wanted = bias.to(kind).expand(2, 3, 8).clone()
            wanted[0, 1] = row.to(kind)
            assert torch.equal(found, wanted)
