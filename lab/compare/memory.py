"""Peak memory of a stretch of work, above what was in use when it began."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import torch

_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE")
EXACT = "cuda allocator"
SAMPLED = "resident memory after malloc_trim, sampled"
UNKNOWN = "not measured"


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
