"""Programs that count each other: launches one after the other, side by side and in graphs leave zeros."""

from __future__ import annotations

import pytest
import torch

from kernels.products.lowrank_linear import lowrank_linear, prepare
from kernels.rows import quantize as quantizing
from kernels.tuned.configs import Config
from kernels.tuned.launching import counters


def test_counters_are_zeros() -> None:
    found = counters(torch.device("cpu"), 5)
    assert found.tolist() == [0] * 5 and found.dtype == torch.int32


@pytest.mark.gpu
def test_launches_share_counters_and_graphs_have_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Config(64, 1, 64, 3, 4, group_m=2, split=5, halves=4, keep=True)
    found = quantizing.lookup
    monkeypatch.setattr(
        quantizing, "lookup", lambda kind, *rest: one if kind == "quantize_many" else found(kind, *rest)
    )
    generator = torch.Generator("cuda").manual_seed(0)
    size = {"generator": generator, "device": "cuda"}
    packed = torch.randint(0, 256, (384, 320), dtype=torch.uint8, **size)
    fine = torch.randint(0, 3, (384, 10), dtype=torch.int8, **size)
    column = torch.rand(384, **size)
    down, up = (torch.randn(*shape, **size).bfloat16() for shape in ((16, 640), (384, 16)))
    weight = prepare(packed, fine, column, 640, 64, 4, None, down, up)
    inputs = [torch.randn(700, 640, **size).bfloat16() for _ in range(3)]
    exact = [lowrank_linear(x, weight).value for x in inputs]
    streams = [torch.cuda.Stream() for _ in inputs]
    torch.cuda.synchronize()
    for _ in range(20):
        beside = []
        for x, stream in zip(inputs, streams, strict=True):
            with torch.cuda.stream(stream):
                beside.append(lowrank_linear(x, weight).value)
        torch.cuda.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(beside, exact, strict=True))
    assert not counters(packed.device, 64).any()
    graphs, outs = [torch.cuda.CUDAGraph() for _ in inputs], []
    for graph, x in zip(graphs, inputs, strict=True):
        with torch.cuda.graph(graph):
            outs.append(lowrank_linear(x, weight).value)
    for _ in range(20):
        for graph, stream in zip(graphs, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(outs, exact, strict=True))
