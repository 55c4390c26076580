"""A quick look at a denoiser: statistics of its layers' inputs over a short recording, kept in memory.

`brainlab inspect` is the thorough one; this is what the app and the widgets show first and `whatif` reads.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from lab.jobs import contract
from lab.jobs.contract import Context, setting

if TYPE_CHECKING:
    from lab.figures.plate import Provenance
    from quant import Trajectories
    from quant.observation import Observation

_KEPT = 6
SEED = 0
_SEEN: OrderedDict[str, Any] = OrderedDict()
_STEPS, _SURFACE_SAMPLES = 4, 2  # of before and after: what a picture shows
_ONE_AT_A_TIME = Lock()


class Settings(contract.Settings):
    """What to look at."""

    model: str = setting(
        "dit-64", "shipped denoiser (brainlab zoo list), or a local folder with --recording", argument=True
    )
    recording: Path | None = setting(
        None, "folder of brainlab record (or quant.record); shipped denoisers make theirs"
    )
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


def before_after(settings: Settings, layer: str, context: Context) -> Observation:
    """Look at one layer again through a rotation, smoothing, and both.

    Raises
    ------
    InputError
        The layer's channels allow neither.
    """
    from lab.models.opening import open_model
    from quant.observation import hadamard, observe

    seen = run(settings, context)
    stats, weight, times = seen.inputs[layer], seen.weights[layer], seen.settings["timesteps"]
    steps = [hadamard(stats), seen.smoothing(layer), hadamard(stats, weight)]
    return observe(
        open_model(settings.model), _store(settings, context), layers=layer, transforms={layer: steps},
        samples=_SURFACE_SAMPLES, timesteps=times[:: -(-len(times) // _STEPS)], attention=False,
        progress=context.progress,
    )  # fmt: skip


def surfaces(settings: Settings, layer: str, context: Context) -> list[Any]:
    """Draw a layer's input before and after rotation, and smoothing, on one axis: two pictures, captions."""
    from lab.report import inspection

    again = before_after(settings, layer, context)
    where = replace(source(settings, again, layer), source=settings.model)
    plates = [draw("light") for draw in inspection.surfaces(again, layer, where).values()]
    return [*(plate.pixels() for plate in plates), "\n\n".join(plate.caption for plate in plates)]


def source(settings: Settings, seen: Observation, layer: str) -> Provenance:
    """Return where a figure's numbers come from."""
    from lab.figures.plate import Provenance
    from lab.runs.folder import config_hash

    samples = f"{seen.settings['samples']} samples at {len(seen.settings['timesteps'])} timesteps"
    fields = settings.model_dump(mode="json", include=set(Settings.model_fields))
    return Provenance(
        f"{settings.model}, {layer}, input of the layer", samples, SEED, config_hash(fields)[:8]
    )


def _store(settings: Settings, context: Context) -> Trajectories:
    from lab.models.preflight import check_recording

    given = check_recording(settings.model, settings.recording)
    if given is not None:
        return given
    from lab.zoo.recordings import zoo_recording

    n = max(4, 2 * settings.samples)  # half of a recording is for calibrating
    return zoo_recording(settings.model, n=n, steps=settings.steps, seed=SEED, progress=context.progress)


def _given(settings: Settings, context: Context) -> Observation:
    """Look at any model on a recording of it; kept by this process only."""
    from lab.models.opening import open_model
    from quant.observation import observe

    store = _store(settings, context)
    known = store.timesteps
    chosen = known[:: -(-len(known) // settings.steps)]
    return observe(
        open_model(settings.model), store, samples=min(settings.samples, len(store)), timesteps=chosen,
        attention=False, progress=context.progress,
    )  # fmt: skip


def _observe(settings: Settings, context: Context) -> Observation:
    """Look, or read what an earlier process saw."""
    from lab import zoo
    from lab.cache import cache_folder
    from lab.errors import InputError
    from lab.models.opening import open_model
    from lab.zoo.recordings import fingerprint
    from quant.errors import MissingDataError
    from quant.observation import Observation, observe

    if settings.model in zoo.VIDEO:
        raise InputError(
            f"model {settings.model!r}: this looks at {', '.join(zoo.DECODERS)} and at a model with its "
            "recording; brainlab inspect looks at any"
        )
    if settings.model not in zoo.DECODERS or settings.recording is not None:
        return _given(settings, context)
    key = fingerprint(settings.model, {"looked at": settings.model_dump(mode="json")})
    folder = cache_folder("looks", f"{settings.model}-{key}")
    try:
        return Observation.load(folder)
    except MissingDataError:  # nobody looked yet
        pass
    store = _store(settings, context)
    seen = observe(
        open_model(settings.model), store, samples=settings.samples, attention=False,
        progress=context.progress,
    )  # fmt: skip
    seen.save(folder)
    return seen
