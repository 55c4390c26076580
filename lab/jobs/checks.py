"""Names in the settings, checked before any long work, with the nearest known one as a hint."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError

#: The word that leaves a model in full precision, wherever a recipe is asked for.
NO_RECIPE = "none"


def check_names(config: ReconstructConfig) -> None:
    """Refuse unknown datasets, dataset options, denoisers and recipes.

    Raises
    ------
    InputError
        One line naming what is known and the nearest to what was given.
    """
    from brainit import datasets
    from lab import zoo

    known("dataset", config.dataset, datasets.list_datasets(), "brainlab data list")
    for option in config.options:
        allowed = datasets.describe(config.dataset)["options"]
        known(f"option of {config.dataset}", option, allowed, f"brainlab data info {config.dataset}")
    known("denoiser", config.denoiser, zoo.DENOISERS, "brainlab zoo list")
    check_recipe_name(config.recipe, config.denoiser)


def check_recipe_name(name: str, denoiser: str) -> None:
    """Refuse an unknown preset, and a setting that its method does not have; needs no torch.

    Raises
    ------
    InputError
        One line with the nearest known name.
    """
    import quant
    from lab.compare.recipes import allocations
    from quant.recipes import CHANGE, PRESET_FILES, parse

    preset, shipped = name.split(CHANGE)[0], allocations(denoiser)
    if not preset.endswith(PRESET_FILES):
        known("recipe", preset, [*quant.list_presets(), *shipped, NO_RECIPE], "brainlab list presets")
    if preset != NO_RECIPE:
        parse(name, shipped)
    elif name != preset:
        raise InputError(f"recipe {name!r}: none leaves the decoder as it is and has no settings to change")


def known(what: str, name: str, allowed: Iterable[str], see: str) -> None:
    """Raise `InputError` unless ``name`` is one of ``allowed``."""
    names = list(allowed)
    if name in names:
        return
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    raise InputError(f"unknown {what} {name!r}; {hint} (see: {see})")
