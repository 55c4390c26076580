"""A launch may overlap the end of the one before it: the same bytes."""

from __future__ import annotations

import pytest
import torch

from kernels.products.lowrank_linear import lowrank_linear, prepare
from kernels.tuned import launching


def test_options_follow_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "OVERLAP", False)
    assert launching.overlapped() == {"OVERLAP": False}
    monkeypatch.setattr(launching, "OVERLAP", True)
    assert launching.overlapped() == {"OVERLAP": True, "launch_pdl": True}


@pytest.mark.gpu
def test_overlapping_launches_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs a GPU of compute capability 9.0")
    generator = torch.Generator("cuda").manual_seed(0)
    size = {"generator": generator, "device": "cuda"}
    packed = torch.randint(0, 256, (384, 320), dtype=torch.uint8, **size)
    fine = torch.randint(0, 3, (384, 10), dtype=torch.int8, **size)
    column = torch.rand(384, **size)
    down, up = (torch.randn(*shape, **size).bfloat16() for shape in ((16, 640), (384, 16)))
    weight = prepare(packed, fine, column, 640, 64, 4, None, down, up)
    x = torch.randn(700, 640, **size).bfloat16()
    outs = []
    for overlap in (False, True):
        monkeypatch.setattr(launching, "OVERLAP", overlap)
        outs += [lowrank_linear(x * scale, weight).value for scale in (1, 2, 3, 1, 2, 3)]
    assert all(torch.equal(a, b) for a, b in zip(outs[:6], outs[6:], strict=True))
