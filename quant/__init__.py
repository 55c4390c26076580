"""Quantize diffusion models, look at what it does to them, and write the result to disk.

>>> import quant
>>> quant.list_presets("rtn-*")
['rtn-w4a4', 'rtn-w4a8', 'rtn-w6a6', 'rtn-w8a8']

Importing this package is cheap; torch is imported by the first verb that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quant.errors import HardwareError, InputError, MissingDataError
from quant.registry import get_method, get_preset, list_methods, list_presets

if TYPE_CHECKING:
    from quant.api import plan, quantize_
    from quant.checkpoint import export, load, read_header
    from quant.install import enabled, restore_, use_backend
    from quant.ledger import Ledger
    from quant.lora import attach_lora, attached_loras, detach_lora
    from quant.observation import Observation, observe
    from quant.plans import Plan
    from quant.quantizer import Quantizer
    from quant.trajectories import Trajectories, record

_LAZY = {
    "plan": "quant.api", "quantize_": "quant.api",
    "export": "quant.checkpoint", "load": "quant.checkpoint", "read_header": "quant.checkpoint",
    "enabled": "quant.install", "restore_": "quant.install", "use_backend": "quant.install",
    "Observation": "quant.observation", "observe": "quant.observation",
    "attach_lora": "quant.lora", "attached_loras": "quant.lora", "detach_lora": "quant.lora",
    "Ledger": "quant.ledger", "Plan": "quant.plans", "Quantizer": "quant.quantizer",
    "Trajectories": "quant.trajectories", "record": "quant.trajectories",
}  # fmt: skip

__all__ = [
    # verbs
    "plan", "quantize_", "restore_", "enabled", "use_backend", "export", "load", "read_header", "record",
    "attach_lora", "attached_loras", "detach_lora",
    "observe",
    # what they speak about
    "Ledger", "Observation", "Plan", "Quantizer", "Trajectories",
    # what exists
    "get_method", "get_preset", "list_methods", "list_presets",
    # errors
    "HardwareError", "InputError", "MissingDataError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
