"""Full float32 arithmetic on a GPU, so that two jobs record and measure the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_arithmetic(device: str) -> Iterator[None]:
    """Full float32 products for a while: TF32 would be an error of the size of some recipes' own."""
    if not device.startswith("cuda"):
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    wanted = ((matmul, "allow_tf32", False), (cudnn, "allow_tf32", False), (cudnn, "benchmark", False),
              (cudnn, "deterministic", True))  # fmt: skip
    before = [getattr(place, name) for place, name, _ in wanted]
    try:
        for place, name, value in wanted:
            setattr(place, name, value)
        yield
    finally:
        for (place, name, _), value in zip(wanted, before, strict=True):
            setattr(place, name, value)
