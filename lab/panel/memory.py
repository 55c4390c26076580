"""Peak memory of a stretch of work, above what was in use when it began."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

import torch

_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class PeakMemory:
    """Measure inside a ``with``.

    On CUDA the allocator counts exactly; on the CPU a thread reads the process' resident memory every few
    milliseconds, so a shorter peak is missed and memory that was free before is not counted.

    Attributes
    ----------
    bytes : int or None
        None where it cannot be known.
    how : str
        "cuda allocator", "resident memory, sampled" or "not measured".
    """

    def __init__(self, device: torch.device, every: float = 0.01) -> None:
        self.device, self._every = device, every
        self.bytes: int | None = None
        self.how = "cuda allocator" if device.type == "cuda" else "resident memory, sampled"
        if device.type != "cuda" and not _STATM.is_file():
            self.how = "not measured"
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        elif self.how != "not measured":
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


def _resident() -> int:
    return int(_STATM.read_text().split()[1]) * _PAGE
