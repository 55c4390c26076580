"""Low-bit arithmetic: one operation a pair of files, packing.

``<op>.py`` holds the wrapper and a plain-torch reference, ``<op>_kernels.py`` the Triton kernels. Every
wrapper returns which path ran. Importing this package does nothing else.

The name is shared with the ``kernels`` distribution of the package index, which diffusers and transformers
import names from when it is installed. `kernels.neighbour` hands such names on, so both live side by side.
"""

from __future__ import annotations

from pkgutil import extend_path
from typing import Any

# Submodules of the other distribution (`kernels.layer`, ...) stay importable; ours are found first.
__path__ = extend_path(__path__, __name__)


def __getattr__(name: str) -> Any:
    if name.startswith("__") and name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kernels.neighbour import lookup

    return lookup(name)
