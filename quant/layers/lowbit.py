"""Door to this project's `kernels` package, which shares its name with one on the package index.

Where that other distribution lies earlier on the import path, `import kernels` gives theirs. Our folder lies
beside this package, so it is appended to that package's search path and submodules of ours are found in
either case. All of `quant` reaches the kernels through this module.
"""

from __future__ import annotations

from pathlib import Path

import kernels

_ours = str(Path(__file__).resolve().parent.parent / "kernels")
if _ours not in list(kernels.__path__):
    kernels.__path__.append(_ours)

from kernels import int8_linear, packing, quantize_rows, w4_linear  # noqa: E402 - after the path is complete

__all__ = ["int8_linear", "packing", "quantize_rows", "w4_linear"]
