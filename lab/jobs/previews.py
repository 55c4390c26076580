"""Pictures on their way: what each sampling step would end in, for whoever watches a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lab.jobs.contract import Context, Preview, unseen

MOST = 8
"""Pictures of one preview."""


def step_previews(
    context: Context, decode: Callable[[Any], Any], what: str, steps: int
) -> Callable[[dict[str, Any]], None] | None:
    """Return an ``on_step`` for `lab.zoo.sampling.sample` that hands previews to the context.

    Parameters
    ----------
    decode : callable
        Latents to pictures (n, 3, H, W) in 0..1.
    what : str
        The stage, as a person would call it.
    steps : int
        Of one batch; only the first batch is shown.

    Returns
    -------
    callable or None
        None where nobody watches, so that sampling decodes nothing in vain.
    """
    if context.preview is unseen:
        return None
    done = 0

    def show(state: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        if done > steps:
            return
        import torch

        with torch.no_grad():
            # a rectified flow's own guess of its end: x = (1 - s) x0 + s n and v = n - x0
            x, v = state["x"][:MOST], state["velocity"][:MOST]
            pictures = decode(x - state["timestep"] / 1000 * v)
        images = pictures.clamp(0, 1).mul(255).round().byte().cpu().permute(0, 2, 3, 1).numpy()
        context.preview(Preview(what, done, steps, images))

    return show
