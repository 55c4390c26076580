"""Names in the settings, checked before any long work, with the nearest known one as a hint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.progress import duration

if TYPE_CHECKING:
    from torch import nn

    from lab.decoding.recipes import DecoderRecipe
    from quant.plans.plan import Plan
    from quant.recipes import Recipe

TRAINING_MINUTES = 15.0
"""What a recipe may train for in a job that nobody asked for more time."""
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
    known("denoiser", config.denoiser, zoo.DECODERS, "brainlab zoo list")
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
    if "*" in preset or "?" in preset:
        quant.get_preset(preset)  # says that a pattern is none
    if not preset.endswith(PRESET_FILES):
        known("recipe", preset, [*quant.list_presets(), *shipped, NO_RECIPE], "brainlab list presets")
    if preset != NO_RECIPE:
        parse(name, shipped)
    elif name != preset:
        raise InputError(f"recipe {name!r}: none leaves the decoder as it is and has no settings to change")


def check_recipe(name: str, denoiser: str) -> DecoderRecipe:
    """Read a recipe's name, or "none", and plan it on a shipped denoiser (`plan_recipe`).

    Raises
    ------
    InputError
        An unknown recipe, setting or value, or as `plan_recipe`.
    MissingDataError
        A preset's file that is not there.
    """
    from lab.compare.recipes import allocations
    from lab.decoding.recipes import DecoderRecipe
    from quant.recipes import parse

    check_recipe_name(name, denoiser)
    if name == NO_RECIPE:
        return DecoderRecipe(name)
    return plan_recipe(parse(name, allocations(denoiser)), denoiser)


def plan_recipe(
    recipe: Recipe,
    denoiser: str,
    minutes: float = TRAINING_MINUTES,
    device: str = "auto",
    model: nn.Module | None = None,
) -> DecoderRecipe:
    """Plan a recipe on a shipped denoiser and refuse it if it cannot run there; a second, changes nothing.

    Parameters
    ----------
    recipe : quant.recipes.Recipe
    denoiser : str
    minutes : float
        Time that it may train for, by its plan's estimate.
    device : str
        Where it would train.
    model : torch.nn.Module, optional
        The denoiser, where several recipes are planned.

    Raises
    ------
    InputError
        It speaks of layers that the denoiser does not have, quantizes none, or trains for longer than that.
    """
    import quant
    from lab import zoo
    from lab.decoding.recipes import DecoderRecipe
    from quant.recipes import CHANGE

    content = CHANGE.join([recipe.preset, *recipe.name.split(CHANGE)[1:]])
    model = zoo.load(denoiser) if model is None else model
    unknown = sorted(set(getattr(recipe.config(), "table", {})) - {n for n, _ in model.named_modules()})
    if unknown:
        raise InputError(
            f"recipe {recipe.name!r} gives bits to the layer {unknown[0]!r}, which {denoiser} does not have: "
            "it was made for another denoiser; make one with brainlab allocate"
        )
    planned = quant.plan(model, content)
    if not planned.quantized:
        raise InputError(
            f"recipe {recipe.name!r} quantizes none of {denoiser}'s {len(planned.layers)} layers"
        )
    _refuse_long(recipe.name, planned, minutes, device)
    return DecoderRecipe(recipe.name, content, recipe.calibrates, planned)


def _refuse_long(name: str, planned: Plan, minutes: float, device: str) -> None:
    from lab.models.devices import choose_device

    if planned.training is None:
        return
    where, macs = choose_device(device), sum(line.macs or 0 for line in planned.layers)
    cost = planned.training
    seconds = cost.seconds(macs) if where == "cpu" else cost.gpu_seconds(macs)
    if seconds > 60 * minutes:
        fitting = int(cost.steps * 60 * minutes / seconds)
        raise InputError(
            f"recipe {name!r} {cost}: about {duration(seconds)} on "
            f"{'one CPU core' if where == 'cpu' else 'a GPU'}, and {minutes:g} min are allowed; allow more "
            f"(brain bits: --training-minutes) or train less (+train_steps={max(1, fitting)})"
        )


def natively(recipe: DecoderRecipe, native: bool, device: str) -> DecoderRecipe:
    """Mark a recipe as one that runs through the kernels, and refuse it where it cannot.

    Raises
    ------
    HardwareError
        There is no device that kernels run on.
    InputError
        No layer of the recipe has a kernel; there is no recipe.
    """
    if not native:
        return recipe
    refuse_native(recipe.plan, device)
    return replace(recipe, native=True)


def refuse_native(plan: Any, device: str) -> None:
    """Refuse to run a plan (none: full precision) through the kernels, as `natively` does."""
    from lab.models.devices import choose_device
    from quant.layers.native.ways import refuse_device, refuse_plan

    if plan is None:
        raise InputError("native belongs to a recipe, and the recipe is none: give one, or leave native away")
    place = choose_device(device)
    refuse_device(place)
    refuse_plan(plan, place)


def known(what: str, name: str, allowed: Iterable[str], see: str) -> None:
    """Raise `InputError` unless ``name`` is one of ``allowed``."""
    names = list(allowed)
    if name in names:
        return
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
    raise InputError(f"unknown {what} {name!r}; {hint} (see: {see})")
