"""Groups of recipes that a comparison knows: methods, everything, committed allocations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab import zoo
from quant import recipes
from quant.recipes import Recipe

FULL = "full-precision"
OTHER_SEED = "full-precision, other seeds"
ALL = "all-ptq"


def allocations(model: str) -> dict[str, str]:
    """Return the committed bit allocations of a shipped denoiser, name and file (`brainlab allocate`)."""
    folder = zoo.HOME / "allocations" / model
    shipped = bool(model) and Path(model).name == model
    return {file.stem: str(file) for file in sorted(folder.glob("*.yaml"))} if shipped else {}


def groups(model: str = "") -> dict[str, list[str]]:
    """Names of groups and their recipes.

    ``all-ptq`` is every preset that is made after training, without a distillation loop, and the model's
    committed allocations; the others are methods.
    """
    import quant

    trains = {name for name in quant.list_methods() if quant.get_method(name).info.trains}
    presets = [name for name in quant.list_presets() if quant.get_preset(name).method not in trains]
    return recipes.groups() | {ALL: list(dict.fromkeys([*presets, *allocations(model)]))}


def expand(words: str | Sequence[str], model: str = "") -> list[Recipe]:
    """Turn ``A,B,…`` with groups and wildcards into a model's recipes, each once, in that order.

    Raises
    ------
    InputError
        A word is neither a recipe nor a group, matches nothing, or is given twice.
    """
    return recipes.expand(words, groups(model), allocations(model))
