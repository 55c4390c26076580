"""Other people's low-bit products that install beside torch; those that do not are left out, with a line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from kernels.bench.cases import ROTATED
from kernels.bench.timed import Timed

HUMMING = [("float8e4m3", 64), ("int8", 64), ("float8e4m3", 128), (None, 64), ("int8", 0)]
"""(type of the input, group; 0: one scale a channel) of humming-kernels' int4 weights."""
SMALL = 64
"""Rows up to which weights are rotated, so that none stays in the cache."""


def peers(m: int, k: int, n: int, device: str = "cuda") -> list[Timed]:
    """16-bit product and the peers' layers of a shape, quantization of the input included.

    Without a low-rank branch, which none of them has.
    """
    random = torch.Generator(device).manual_seed(m + k)
    count = ROTATED if m <= SMALL else 1
    x = torch.randn(m, k, generator=random, device=device).bfloat16()
    weights = [(torch.randn(n, k, generator=random, device=device) * 0.05).bfloat16() for _ in range(count)]
    timed = [Timed("bf16", [lambda w=w: nn.functional.linear(x, w) for w in weights])]
    makers: list[tuple[str, str, Callable[[Tensor], Any]]] = [
        ("humming", f"humming int4 {f'g{group}' if group else 'channel'}, {kind or 'bf16'} input",
         partial(_humming, kind, group))
        for kind, group in HUMMING
    ]  # fmt: skip
    makers += [
        ("bitsandbytes", "bitsandbytes NF4, bf16 input", _nf4),
        ("torchao", "torchao float8 rows, compiled", _torchao),
    ]
    for package, name, make in makers:
        try:
            if find_spec(package) is None:
                raise ImportError(f"{package} is not installed")
            with torch.no_grad():
                layers = [make(w) for w in weights]
                calls = [lambda layer=layer: layer(x) for layer in layers]
                calls[0]()
        except Exception as error:
            text = f"{type(error).__name__}: {str(error)[:120]}"
            calls = [lambda text=text: _fail(text)]
        timed.append(Timed(name, calls, peer=True))
    return timed


def _humming(kind: str | None, group: int, weight: Tensor) -> Any:
    from humming.layer import HummingLayer

    layer = HummingLayer(
        shape_n=weight.shape[0], shape_k=weight.shape[1],
        weight_config={"dtype": "int4", "group_size": group},
        input_config={"dtype": kind} if kind else None, torch_dtype=torch.bfloat16,
    ).to(weight.device)  # fmt: skip
    layer.load_from_unquantized(weight)
    layer.transform()
    return layer


def _nf4(weight: Tensor) -> Any:
    import bitsandbytes

    n, k = weight.shape
    layer = bitsandbytes.nn.Linear4bit(k, n, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.weight = bitsandbytes.nn.Params4bit(weight.cpu(), requires_grad=False, quant_type="nf4")
    return layer.to(weight.device)


def _torchao(weight: Tensor) -> Any:
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow, quantize_

    n, k = weight.shape
    layer = nn.Sequential(nn.Linear(k, n, bias=False, device="meta"))
    layer[0].weight = nn.Parameter(weight, requires_grad=False)
    quantize_(layer, Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()))
    return torch.compile(layer, fullgraph=True)


def _fail(text: str) -> Tensor:
    raise RuntimeError(text)
