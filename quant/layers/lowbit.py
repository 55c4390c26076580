"""Door to this project's `kernels`, which shares its import name with a distribution of the package index.

Ours has no ``kernels/__init__.py``, so either distribution can be installed and removed without touching a
file of the other: in one folder the modules of both lie side by side. Where the other lies in a folder of
its own (an editable install of ours, a checkout on the path), Python takes that for the whole package; our
folder lies beside `quant` and is added to its search path. All of `quant` comes through here.
"""

from __future__ import annotations

from pathlib import Path

import kernels

_ours = str(Path(__file__).resolve().parents[2] / "kernels")
if _ours not in list(kernels.__path__):
    kernels.__path__.append(_ours)

from kernels import packing, paths  # noqa: E402 - after the path is complete
from kernels.images import conv2d, group_norm  # noqa: E402
from kernels.products import expand_half, expand_table, few_rows, gemm, lowrank_linear  # noqa: E402
from kernels.rows import before, operands, quantize  # noqa: E402

__all__ = [
    "before", "conv2d", "expand_half", "expand_table", "few_rows", "gemm", "group_norm", "lowrank_linear",
    "operands", "packing", "paths", "quantize",
]  # fmt: skip
