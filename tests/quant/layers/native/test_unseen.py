"""What a CUDA graph would not see, operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from quant.layers.native import replays
from quant.layers.native.unseen import Repeatable, Snapshot, Unrepeatable, onlooker, parts_of


def test_what_attention_says_of_its_dropout_is_no_copy() -> None:
    """On a GPU it returns the state of the generator, on the CPU."""

    class Attention:
        tags = (torch.Tag.nondeterministic_seeded,)

        def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, torch.zeros((), dtype=torch.int64)

        def __str__(self) -> str:
            return "aten._scaled_dot_product_efficient_attention.default"

    x = torch.ones(2, device="meta")
    assert Repeatable().__torch_dispatch__(Attention(), (), (x,))[0] is x
    with pytest.raises(Unrepeatable, match="copies between cpu and meta"), Repeatable():
        torch.ones(()).to("meta")
    with pytest.raises(Unrepeatable, match="copies between cpu and meta"), Repeatable():
        torch.ones(3, device="meta") + torch.ones(3)
    with Repeatable():
        torch.ones(3, device="meta") + torch.ones(())


def test_what_decides_how_an_operation_is_computed_has_a_graph_of_its_own() -> None:
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    switches: list[tuple[Any, str]] = [
        (cuda.matmul, "allow_tf32"), (cuda.matmul, "allow_bf16_reduced_precision_reduction"),
        (cuda.matmul, "allow_fp16_reduced_precision_reduction"), (cudnn, "allow_tf32"), (cudnn, "benchmark"),
        (cudnn, "deterministic"), (cudnn, "enabled"),
    ]  # fmt: skip
    usual = replays._modes()
    for place, name in switches:
        before = getattr(place, name)
        setattr(place, name, not before)
        try:
            assert replays._modes() != usual, name
        finally:
            setattr(place, name, before)
    for backend in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        with sdpa_kernel(backend):
            assert replays._modes() != usual
    with torch.inference_mode():
        assert replays._modes() != usual
    calls: list[tuple[Callable[..., None], tuple[Any, ...], tuple[Any, ...]]] = [
        (torch.use_deterministic_algorithms, (True,), (False,)),
        (torch.set_autocast_enabled, ("cuda", True), ("cuda", False)),
        (torch.set_autocast_dtype, ("cuda", torch.bfloat16), ("cuda", torch.float16)),
    ]
    for switch, on, off in calls:
        switch(*on)
        try:
            assert replays._modes() != usual, switch
        finally:
            switch(*off)
    assert replays._modes() == usual


def test_tensors_that_were_swapped_and_modes_that_look_are_seen() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    parts = parts_of(model)
    before = Snapshot(model, parts)
    assert before.same(Snapshot(model, parts)) and not onlooker(model, parts)
    model[0].weight.data = model[0].weight.data.clone()  # counted as no write
    assert not before.same(Snapshot(model, parts))
    with Repeatable():
        assert "a dispatch mode looks" in onlooker(model, parts)
