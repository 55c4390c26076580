"""Names in the settings, checked before any long work, with the nearest known one as a hint."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError


def check_names(config: ReconstructConfig) -> None:
    """Refuse unknown datasets, dataset options, denoisers and recipes.

    Raises
    ------
    InputError
        One line naming what is known and the nearest to what was given.
    """
    from brainit import datasets
    from lab import zoo
    from lab.jobs.listing import NO_RECIPE, preset_names

    known("dataset", config.dataset, datasets.list_datasets(), "brainlab data list")
    for option in config.options:
        allowed = datasets.describe(config.dataset)["options"]
        known(f"option of {config.dataset}", option, allowed, f"brainlab data info {config.dataset}")
    known("denoiser", config.denoiser, zoo.DENOISERS, "brainlab zoo list")
    known("recipe", config.recipe, [*preset_names(), NO_RECIPE], "brainlab list presets")


def known(what: str, name: str, allowed: Iterable[str], see: str) -> None:
    """Raise `InputError` unless ``name`` is one of ``allowed``."""
    names = list(allowed)
    if name in names:
        return
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    raise InputError(f"unknown {what} {name!r}; {hint} (see: {see})")
