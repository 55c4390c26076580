"""Other people's 4-bit products that install beside torch; those that do not are left out, with a line."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from kernels.bench.cases import ROTATED, Timed

HUMMING = [("float8e4m3", 64), ("int8", 64), ("float8e4m3", 128), (None, 64), ("int8", 0)]
"""(type of the input, group; 0: one scale a channel) of humming-kernels' int4 weights."""


def peers(m: int, k: int, n: int, device: str = "cuda") -> list[Timed]:
    """16-bit product and humming-kernels' layers of a shape, quantization of the input included."""
    if find_spec("humming") is None:
        return []
    from humming.layer import HummingLayer

    random = torch.Generator(device).manual_seed(m + k)
    count = ROTATED if m <= 64 else 1
    x = torch.randn(m, k, generator=random, device=device).bfloat16()
    weights = [(torch.randn(n, k, generator=random, device=device) * 0.05).bfloat16() for _ in range(count)]
    timed = [Timed("bf16", [lambda w=w: torch.nn.functional.linear(x, w) for w in weights])]
    for kind, group in HUMMING:

        def made(kind: str | None = kind, group: int = group) -> list:
            layers = []
            for w in weights:
                layer = HummingLayer(
                    shape_n=n, shape_k=k, weight_config={"dtype": "int4", "group_size": group},
                    input_config={"dtype": kind} if kind else None, torch_dtype=torch.bfloat16,
                ).to(device)  # fmt: skip
                layer.load_from_unquantized(w)
                layer.transform()
                layers.append(layer)
            return layers

        name = f"humming int4 {f'g{group}' if group else 'channel'}, {kind or 'bf16'} input"
        try:
            calls = [lambda layer=layer: layer(x) for layer in made()]
        except Exception as error:
            text = f"{type(error).__name__}: {str(error)[:120]}"
            calls = [lambda text=text: _fail(text)]
        timed.append(Timed(name, calls, peer=True))
    return timed


def _fail(text: str) -> torch.Tensor:
    raise RuntimeError(text)
