"""A quick look at a denoiser: statistics of its layers' inputs over a short recording, kept in memory.

`brainlab inspect` is the thorough one; this is what the app and the widgets show first and `whatif` reads.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any

from lab.jobs import contract
from lab.jobs.contract import Context, setting

if TYPE_CHECKING:
    from quant.observation import Observation

_KEPT = 6
_SEEN: OrderedDict[str, Any] = OrderedDict()
_ONE_AT_A_TIME = Lock()


class Settings(contract.Settings):
    """What to look at."""

    model: str = setting("dit-64", "shipped denoiser (brainlab zoo list)", argument=True)
    samples: int = setting(2, "samples looked at", ge=1, le=32)
    steps: int = setting(5, "sampling steps of the recording", ge=1, le=100)


def run(settings: Settings, context: Context) -> Observation:
    """Observe all layers; the same settings are looked at once per process.

    Raises
    ------
    InputError
        Unknown model.
    """
    key = settings.model_dump_json()
    with _ONE_AT_A_TIME:  # two sessions that ask for the same look wait for one of them
        if key not in _SEEN:
            _SEEN[key] = _observe(settings, context)
            while len(_SEEN) > _KEPT:
                _SEEN.popitem(last=False)
        _SEEN.move_to_end(key)
        return _SEEN[key]


def _observe(settings: Settings, context: Context) -> Observation:
    from lab.models.opening import open_model
    from lab.zoo.recordings import zoo_recording
    from quant.observation import observe

    model = open_model(settings.model)
    n = max(4, 2 * settings.samples)  # half of a recording is for calibrating
    store = zoo_recording(settings.model, n=n, steps=settings.steps, progress=context.progress)
    return observe(model, store, samples=settings.samples, attention=False, progress=context.progress)
