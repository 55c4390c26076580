"""What a recipe costs: bytes, bits, operations from the ledger; peak memory of calibrating."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE")
EXACT = "cuda allocator"
SAMPLED = "resident memory after malloc_trim, sampled"
UNKNOWN = "not measured"
FLOAT_BITS = 16
"""What an operand that stays in floating point counts as."""
BIT_OPS_RULE = (
    "bit-operations of one forward: sum over Linear and Conv2d of multiply-accumulates x bits of the weight "
    f"x bits of the input; an operand in floating point counts {FLOAT_BITS}; scales, side branches, "
    "transforms, normalisation and attention products are not counted"
)


def costs(ledger: Any) -> dict[str, Any]:
    """Return flat costs of a quantized model.

    Parameters
    ----------
    ledger : quant.Ledger

    Returns
    -------
    dict
        ``bytes`` of all tensors as stored (the rest of the model as it is kept, in float32 for the zoo's),
        ``bytes_quantized`` of the layers alone, ``weight_bits`` (mean over all Linear and Conv2d weights with
        scales and branches), ``tera_bit_ops`` and ``bit_ops_share`` of what 16x16 bits would be (None where
        the model's sizes are not known), ``layers_quantized`` of ``layers``, ``execution`` (simulated, or by
        which kernels), ``from_codes`` (how native layers run).
    """
    layers = ledger.layers
    measured = all(layer.macs is not None for layer in layers)
    operations = sum((layer.macs or 0) * _bits(layer.weight) * _bits(layer.activation) for layer in layers)
    full = sum((layer.macs or 0) for layer in layers) * FLOAT_BITS**2
    return {
        "bytes": ledger.bytes_after,
        "bytes_before": ledger.bytes_before,
        "bytes_quantized": sum(layer.bytes_after for layer in layers),
        "weight_bits": ledger.mean_weight_bits,
        "tera_bit_ops": operations / 1e12 if measured else None,
        "bit_ops_share": operations / full if measured and full else None,
        "layers_quantized": len(ledger.quantized),
        "layers": len(layers),
        "execution": ledger.arithmetic,
        "from_codes": "; ".join(sorted({x.path.rpartition("from codes: ")[2] for x in ledger.quantized})),
    }


def full_costs(model: Any) -> dict[str, Any]:
    """Return the same of the model before it is quantized."""
    from quant.denoisers.inventory import find_layers, model_bytes
    from quant.denoisers.macs import count_macs

    layers = find_layers(model)
    macs, _ = count_macs(model, None)
    size = model_bytes(model)
    weights = sum(layer.bytes for layer in layers)
    count = sum(layer.n_weights for layer in layers)
    full = sum(macs.values()) * FLOAT_BITS**2
    return {
        "bytes": size,
        "bytes_before": size,
        "bytes_quantized": weights,
        "weight_bits": 8 * weights / max(1, count),
        "tera_bit_ops": full / 1e12 if macs else None,
        "bit_ops_share": 1.0 if macs else None,
        "layers_quantized": 0,
        "layers": len(layers),
        "execution": "full precision",
        "from_codes": "",
    }


def _bits(quantizer: Any) -> int:
    return FLOAT_BITS if quantizer is None else int(quantizer.bits)


class PeakMemory:
    """Measure inside a ``with``.

    On CUDA the allocator counts exactly. On the CPU a thread reads the process' resident memory every few
    milliseconds; freed memory is handed back to the system first, else work that uses it again would count
    as nothing. A shorter peak is missed, and libraries that the work loads for the first time count with it:
    an upper estimate of long work, no figure to rank recipes by.

    Attributes
    ----------
    bytes : int or None
        None where it cannot be known.
    how : str
        `EXACT`, `SAMPLED` or `UNKNOWN`.
    """

    def __init__(self, device: torch.device, every: float = 0.01) -> None:
        self.device, self._every = device, every
        self.bytes: int | None = None
        self.how = EXACT if device.type == "cuda" else SAMPLED
        if device.type != "cuda" and (not _STATM.is_file() or _trim is None):
            self.how = UNKNOWN
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        elif self.how == SAMPLED and _trim is not None:
            gc.collect()
            _trim(0)
            self._before = self._peak = _resident()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self._before
        elif self._thread is not None:
            self._stop.set()
            self._thread.join()
            self.bytes = max(self._peak, _resident()) - self._before

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self._peak = max(self._peak, _resident())


def _find_trim() -> Callable[[int], int] | None:
    """Return glibc's call that hands freed memory back; other C libraries have none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None


_trim = _find_trim()


def _resident() -> int:
    return int(_STATM.read_text().split()[1]) * _PAGE
