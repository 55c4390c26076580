"""Pictures on their way: what each sampling step would end in, for whoever watches a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from quant.recordings.sampling import Step

MOST = 8
"""Pictures of one preview."""


@dataclass(frozen=True)
class Preview:
    """Pictures on their way, for looking only: no result depends on them.

    Parameters
    ----------
    what : str
        Which stage, as a person would call it ("sampling, quantized").
    step, steps : int
        How far this stage is.
    images : uint8 array of shape (n, H, W, 3)
    """

    what: str
    step: int
    steps: int
    images: np.ndarray


Watcher = Callable[[Preview], None]


def unseen(preview: Preview) -> None:
    """Show nothing; who watches gives another."""


_WATCHER: ContextVar[Watcher] = ContextVar("watcher", default=unseen)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Let what this thread draws inside the block be seen; for steps deep below a job (`watcher`)."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def watcher() -> Watcher:
    """Return who watches this thread."""
    return _WATCHER.get()


def step_previews(
    watcher: Watcher, decode: Callable[[Any], Any], what: str | Callable[[], str], steps: int
) -> Callable[[Step], None] | None:
    """Return a ``see`` for `quant.recordings.sampling.sample` that hands previews to a watcher.

    Parameters
    ----------
    watcher : callable
        Receives a `Preview` at each step.
    decode : callable
        Latents to pictures (n, 3, H, W) in 0..1.
    what : str or callable
        The stage, as a person would call it; a callable is asked at each step.
    steps : int
        Of one batch; only the first batch is shown.

    Returns
    -------
    callable or None
        None where nobody watches, so that sampling decodes nothing in vain.
    """
    if watcher is unseen:
        return None

    def show(step: Step) -> None:
        if step.rows.start:
            return
        import torch

        with torch.no_grad():
            # a rectified flow's own guess of its end: x = (1 - s) x0 + s n and v = n - x0
            x, v = step.x[:MOST], step.output[:MOST]
            pictures = decode(x - step.timestep / 1000 * v)
        images = pictures.clamp(0, 1).mul(255).round().byte().cpu().permute(0, 2, 3, 1).numpy()
        stage = what if isinstance(what, str) else what()
        watcher(Preview(stage, step.index + 1, steps, images))

    return show
