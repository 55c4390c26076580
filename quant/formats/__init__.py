"""Number formats; the words of a quantizer by name, imported when they are asked for.

>>> from quant.formats import Granularity, IntGrid, Quantizer
>>> Quantizer(grid=IntGrid(bits=4), granularity=Granularity(kind="group", group_size=64)).label
'int4/g64'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quant.formats.granularity import Granularity
    from quant.formats.grids import IntGrid
    from quant.formats.quantizer import Quantizer
    from quant.formats.schedule import Schedule

_LAZY = {
    "Granularity": "quant.formats.granularity", "IntGrid": "quant.formats.grids",
    "Quantizer": "quant.formats.quantizer", "Schedule": "quant.formats.schedule",
}  # fmt: skip

__all__ = ["Granularity", "IntGrid", "Quantizer", "Schedule"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
