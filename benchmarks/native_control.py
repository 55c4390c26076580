"""How far a simulated model is from itself once its layers round their outputs to 16 bits.

    python -m benchmarks.native_control --out benchmarks/results/native-control-cpu

Codes that lie near a rounding edge flip with the last bit of their input, and the flips of one layer are the
input of the next: noise of one part in a million in each layer's output already moves a prediction about as
far as quantizing itself does. So a native model cannot be asked to be nearer to the simulated one than that
one is to itself in bfloat16. `benchmarks.native_pictures` measures the same beside the kernels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.files import write_csv
from quant.layers.install import quant_layers


@contextmanager
def rounding(model: nn.Module) -> Iterator[None]:
    """Round the outputs of quantized layers to bfloat16, in a ``with``."""

    def rounded(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.bfloat16().to(output.dtype)

    handles = [layer.register_forward_hook(rounded) for layer in quant_layers(model).values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def main(arguments: list[str] | None = None) -> int:
    """Parse arguments and run."""
    from benchmarks.native_pictures import RECIPES, compare
    from benchmarks.whole_models import environment
    from lab import zoo
    from lab.zoo.recordings import order, stimulus_tokens

    parser = argparse.ArgumentParser(prog="python -m benchmarks.native_control", description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(zoo.DECODERS), choices=zoo.DECODERS)
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES))
    parser.add_argument("--n", type=int, default=8, help="pictures")
    parser.add_argument("--steps", type=int, default=8, help="of the sampler")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="NAME of NAME.csv")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    shared = environment(torch.device(options.device))

    def keep(row: dict[str, Any]) -> None:
        rows.append({**row, **shared})
        write_csv(options.out.with_suffix(".csv"), rows)
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()

    conditions = {"pictures": stimulus_tokens(order(start=64)[: options.n], options.device)}
    for name in options.models:
        for recipe in options.recipes:
            compare(name, recipe, conditions, options.steps, options.device, keep, kernels=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
