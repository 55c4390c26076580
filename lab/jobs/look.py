"""A quick look at a denoiser: statistics of its layers' inputs over a short recording, kept in memory.

`brainlab inspect` is the thorough one; this is what the app and the widgets show first and `whatif` reads.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lab.jobs.contract import Context, Settings

if TYPE_CHECKING:
    from quant.observation import Observation

_KEPT = 6
_SEEN: OrderedDict[str, Any] = OrderedDict()
_ONE_AT_A_TIME = Lock()


class LookSettings(Settings):
    """What to look at."""

    model: str = Field("dit-64", description="shipped denoiser (brainlab zoo list)")
    layers: str = Field("*", description="wildcard over layer names")
    samples: int = Field(2, ge=1, le=32, description="samples looked at")
    steps: int = Field(5, ge=1, le=100, description="sampling steps of the recording")


def run(settings: LookSettings, context: Context) -> Observation:
    """Observe the layers; the same settings are looked at once per process.

    Raises
    ------
    InputError
        Unknown model, or a wildcard without a layer.
    """
    key = settings.model_dump_json()
    with _ONE_AT_A_TIME:  # two sessions that ask for the same look wait for one of them
        if key not in _SEEN:
            _SEEN[key] = _observe(settings, context)
            while len(_SEEN) > _KEPT:
                _SEEN.popitem(last=False)
        _SEEN.move_to_end(key)
        return _SEEN[key]


def _observe(settings: LookSettings, context: Context) -> Observation:
    from lab.models.opening import open_model
    from lab.zoo.recordings import zoo_recording
    from quant.observation import observe

    model = open_model(settings.model)
    n = max(4, 2 * settings.samples)  # half of a recording is for calibrating
    store = zoo_recording(settings.model, n=n, steps=settings.steps, progress=context.progress)
    attention = settings.layers == "*"
    return observe(
        model, store, layers=settings.layers, samples=settings.samples, attention=attention,
        progress=context.progress,
    )  # fmt: skip
