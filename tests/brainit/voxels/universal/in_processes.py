"""What ``accelerate launch`` starts (tests/launched.py): a fit in several processes, weights into a file."""

from __future__ import annotations

from pathlib import Path

from brainit.processes import Processes
from brainit.voxels.universal import collect, fit_universal
from tests.brainit.voxels.universal.conftest import make_world


def fit(out: Path, together: Processes) -> None:
    """Fit with everything that is random switched on, but dropout."""
    world = make_world(n_train=25, n_test=3)
    trials, ids = collect(world.subjects)
    config = world.config.model_copy(update={"epochs": 2, "batch": 7, "bypass_rank": 2, "shift": 1})
    more = {"folder": out.parent / f"checkpoints{together.size}", "processes": together}
    fitted = fit_universal(world.backbone, world.pictures(ids), trials, config, **more)
    if together.first:
        fitted.save(out)
    together.wait()
