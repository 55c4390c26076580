"""Quantize diffusion models, look at what it does to them, and write the result to disk.

>>> import quant
>>> quant.list_presets("rtn-*")
['rtn-w3a4', 'rtn-w4a4', 'rtn-w4a8', 'rtn-w6a6', 'rtn-w8a8']

Importing this package costs nothing; torch is imported by the first verb that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quant.errors import HardwareError, InputError, MissingDataError

if TYPE_CHECKING:
    from quant.api import plan, quantize_
    from quant.checkpoint import export, load, read_header
    from quant.formats.quantizer import Quantizer
    from quant.interop.lora import attach_lora, attached_loras, detach_lora
    from quant.layers.install import enabled, restore_, use_backend
    from quant.layers.native.graphs import graphed
    from quant.layers.native.ways import native_, natively
    from quant.observation import Observation, observe
    from quant.plans.ledger import Ledger
    from quant.plans.plan import Plan
    from quant.recordings.trajectories import Trajectories, record
    from quant.registry import get_method, get_preset, list_methods, list_presets

_LAZY = {
    "plan": "quant.api", "quantize_": "quant.api",
    "export": "quant.checkpoint", "load": "quant.checkpoint", "read_header": "quant.checkpoint",
    "enabled": "quant.layers.install", "restore_": "quant.layers.install",
    "use_backend": "quant.layers.install",
    "native_": "quant.layers.native.ways", "natively": "quant.layers.native.ways",
    "graphed": "quant.layers.native.graphs",
    "Observation": "quant.observation", "observe": "quant.observation",
    "attach_lora": "quant.interop.lora", "attached_loras": "quant.interop.lora",
    "detach_lora": "quant.interop.lora",
    "Ledger": "quant.plans.ledger", "Plan": "quant.plans.plan", "Quantizer": "quant.formats.quantizer",
    "Trajectories": "quant.recordings.trajectories", "record": "quant.recordings.trajectories",
    "get_method": "quant.registry", "get_preset": "quant.registry", "list_methods": "quant.registry",
    "list_presets": "quant.registry",
}  # fmt: skip

__all__ = [
    # verbs
    "plan", "quantize_", "restore_", "enabled", "use_backend", "export", "load", "read_header", "record",
    "attach_lora", "attached_loras", "detach_lora",
    "observe", "native_", "natively", "graphed",
    # what they speak about
    "Ledger", "Observation", "Plan", "Quantizer", "Trajectories",
    # what exists
    "get_method", "get_preset", "list_methods", "list_presets",
    # errors
    "HardwareError", "InputError", "MissingDataError",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "registry":
        return import_module("quant.registry")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
