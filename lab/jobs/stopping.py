"""Stopping inside a model: a job that draws for minutes between two reports still ends at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab.jobs.contract import Context


@contextmanager
def stoppable(context: Context) -> Iterator[None]:
    """Look at ``context.stop`` before every layer that this thread runs; nothing of it is left afterwards.

    Raises
    ------
    Cancelled
        Somebody set ``stop``.
    """
    from torch.nn.modules.module import register_module_forward_pre_hook

    thread = threading.get_ident()

    def look(module: Any, inputs: Any) -> None:
        if threading.get_ident() == thread:
            context.check()

    hook = register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()
