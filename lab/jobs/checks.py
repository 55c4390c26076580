"""Names in the settings, checked before any long work, with the nearest known one as a hint."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError

if TYPE_CHECKING:
    from lab.decoding.recipes import DecoderRecipe


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
    """Refuse an unknown preset, setting or value; needs no torch.

    Raises
    ------
    InputError
        One line with the nearest known name.
    """
    from lab.compare.recipes import CHANGE, PRESET_FILES, allocations, parse
    from lab.jobs.listing import NO_RECIPE, preset_names

    preset, *changes = name.split(CHANGE)
    shipped = allocations(denoiser)
    if not preset.endswith(PRESET_FILES):
        known("recipe", preset, [*preset_names(), *shipped, NO_RECIPE], "brainlab list presets")
    if preset == NO_RECIPE:
        if changes:
            raise InputError(f"recipe {name!r}: 'none' leaves the decoder as it is, it has no settings")
        return
    import quant

    method = quant.get_preset(shipped.get(preset, preset)).method
    for change in changes:
        field, equals, _ = change.partition("=")
        if equals:  # without one, `parse` says how a change is written
            fields = quant.get_method(method).config.model_fields
            known(f"setting of {method}", field, fields, f"quant.get_method({method!r}).config")
    parse(name, denoiser)  # values


def check_recipe(name: str, denoiser: str) -> DecoderRecipe:
    """Plan a recipe on a shipped denoiser and refuse it if it cannot run there; a second, changes nothing.

    Raises
    ------
    InputError
        An unknown recipe, setting or value; layers that the denoiser does not have; nothing to quantize.
    MissingDataError
        A preset's file that is not there.
    """
    import quant
    from lab import zoo
    from lab.compare.recipes import parse
    from lab.decoding.recipes import FULL, DecoderRecipe

    check_recipe_name(name, denoiser)
    if name == FULL:
        return DecoderRecipe(name)
    recipe = parse(name, denoiser)
    content = recipe.config() if recipe.changes else recipe.preset
    model = zoo.load(denoiser)
    unknown = sorted(set(getattr(recipe.config(), "table", {})) - {n for n, _ in model.named_modules()})
    if unknown:
        raise InputError(
            f"recipe {name!r} gives bits to the layer {unknown[0]!r}, which {denoiser} does not have: it was "
            "made for another denoiser; make one with brainlab allocate"
        )
    planned = quant.plan(model.to("meta"), content)
    if not planned.quantized:
        raise InputError(f"recipe {name!r} quantizes none of {denoiser}'s {len(planned.layers)} layers")
    return DecoderRecipe(name, content, recipe.calibrates, planned)


def known(what: str, name: str, allowed: Iterable[str], see: str) -> None:
    """Raise `InputError` unless ``name`` is one of ``allowed``."""
    names = list(allowed)
    if name in names:
        return
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    raise InputError(f"unknown {what} {name!r}; {hint} (see: {see})")
