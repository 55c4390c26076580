"""torch.compile keeps each launch as one step of its graph: no break, the same bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kernels.attention.log_attention import log_attention
from kernels.images.conv2d import conv2d
from kernels.images.group_norm import group_norm, sample_scale
from kernels.products.expand_half import expand_half
from kernels.products.few_rows import few_rows
from kernels.products.lowrank_linear import lowrank_linear, prepare
from kernels.rows.quantize import quantize


def check(device: str) -> None:
    """Compiled without a break and eager give the same bytes."""
    backend = "aot_eager" if device == "cpu" else "inductor"
    for name, (function, inputs) in calls(device).items():
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, backend=backend)
        eager, once = function(*inputs), compiled(*inputs)
        assert torch.equal(eager, once), name


def calls(device: str) -> dict[str, tuple[Callable, tuple[torch.Tensor, ...]]]:
    generator = torch.Generator().manual_seed(0)

    def half(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator).half().to(device)

    packed = torch.randint(0, 256, (24, 32), generator=generator, dtype=torch.uint8).to(device)
    fine = torch.randint(0, 3, (24, 1), generator=generator, dtype=torch.int8).to(device)
    column = torch.rand(24, generator=generator).to(device)
    down, up = half(16, 64), half(24, 16)
    weight = prepare(packed, fine, column, 64, 64, 4, None, down, up)
    image = torch.randint(-9, 9, (1, 4, 4, 16), generator=generator, dtype=torch.int8).to(device)
    kernel = torch.randint(-9, 9, (8, 3, 3, 16), generator=generator, dtype=torch.int8).to(device)
    one, eight = torch.ones(1, device=device), torch.ones(8, device=device)

    def linear(x: torch.Tensor) -> torch.Tensor:
        return lowrank_linear(x * 2, weight, "triton").value + 1

    def few(x: torch.Tensor) -> torch.Tensor:
        return few_rows(x + 1, packed, fine, 64, column, path="triton").value * 2

    def many(x: torch.Tensor) -> torch.Tensor:
        weight = expand_half(packed, fine, 64, 64, column, x.dtype, path="triton").value
        return torch.nn.functional.linear(x + 1, weight)

    def convolution(x: torch.Tensor) -> torch.Tensor:
        return conv2d(x, one, kernel, eight, padding=(1, 1), path="triton").value.float() + 1

    def norm(x: torch.Tensor) -> torch.Tensor:
        before = group_norm(x, 4, path="triton")
        scale = sample_scale(x, before, 448, "triton")
        rows = quantize(x.flatten(0, 1), "e4m3_token", before=before, scale=scale, path="triton")
        return rows.codes.float() * 2

    def attention(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return log_attention(q * 2, k, k, sink=0, path="triton").value + 1

    return {
        "linear": (linear, (half(2, 5, 64),)),
        "few rows": (few, (half(3, 64),)),
        "many rows": (many, (half(70, 64),)),
        "convolution": (convolution, (image,)),
        "norm": (norm, (half(2, 9, 16),)),
        "attention": (attention, (half(1, 2, 6, 16), half(1, 2, 9, 16))),
    }


def test_interpreted(interpreted: Callable[[str], None]) -> None:
    interpreted(__file__)


@pytest.mark.gpu
def test_compiled() -> None:
    check("cuda")


@pytest.mark.gpu
def test_a_graph_gives_the_same_bytes() -> None:
    function, (x,) = calls("cuda")["linear"]
    eager = function(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = function(x)
    out.zero_()
    graph.replay()
    assert torch.equal(out, eager)
