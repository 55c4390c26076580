"""What a CUDA graph would not see, operation by operation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quant.layers.native.unseen import Repeatable, Unrepeatable


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
