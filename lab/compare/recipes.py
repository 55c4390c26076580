"""Names of recipes: presets, presets with changes, wildcards, groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import zoo
from lab.errors import InputError

if TYPE_CHECKING:
    from quant.registry import MethodInfo

FULL = "full-precision"
OTHER_SEED = "full-precision, other seeds"
ALL = "all-ptq"
CHANGE = "+"
PRESET_FILES = (".yaml", ".yml")


@dataclass(frozen=True)
class Recipe:
    """A preset, or one with changed settings.

    Parameters
    ----------
    name : str
        ``PRESET`` or ``PRESET+field=value+...``; PRESET may be a preset's file.
    preset : str
    changes : mapping
        Settings that differ from the preset.
    """

    name: str
    preset: str
    changes: dict[str, Any]

    @property
    def method(self) -> str:
        """Name of the method."""
        import quant

        return quant.get_preset(self.preset).method

    def config(self) -> Any:
        """Return the validated config of the method.

        Raises
        ------
        InputError
            Unknown preset or setting, or a value out of bounds.
        """
        from quant import registry

        _, chosen, config = registry.resolve(self.preset)
        return registry.validate(chosen, {**config.model_dump(), **self.changes}) if self.changes else config

    @property
    def info(self) -> MethodInfo:
        """What the method says of itself."""
        import quant

        return quant.get_method(self.method).info

    @property
    def calibrates(self) -> bool:
        """Whether the method needs recorded sampling."""
        return self.info.needs_calibration

    @property
    def trains(self) -> bool:
        """Whether the method trains something."""
        return self.info.needs_gradients


def parse(name: str, model: str = "") -> Recipe:
    """Read one recipe name; checks preset, settings and values.

    Parameters
    ----------
    name : str
    model : str
        Shipped denoiser, whose committed allocations go by their names.

    Examples
    --------
    >>> parse("rtn-w8a8+weight_bits=3").changes
    {'weight_bits': 3}
    """
    import yaml

    preset, *words = name.split(CHANGE)
    preset = allocations(model).get(preset, preset)
    changes: dict[str, Any] = {}
    for word in words:
        field, equals, value = word.partition("=")
        if not equals or not field:
            raise InputError(f"recipe {name!r}: {word!r} is no change; write PRESET+field=value")
        try:
            changes[field] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(
                f"recipe {name!r}: {value!r} is no value for {field}; write a number, true, false or a name"
            ) from None
    if preset.endswith(PRESET_FILES):  # a preset that a method saved is known by its file's name
        name = CHANGE.join([Path(preset).stem, *words])
    recipe = Recipe(name, preset, changes)
    recipe.config()
    return recipe


def allocations(model: str) -> dict[str, str]:
    """Return the committed bit allocations of a shipped denoiser, name and file (`brainlab allocate`)."""
    folder = zoo.HOME / "allocations" / model
    shipped = bool(model) and Path(model).name == model
    return {file.stem: str(file) for file in sorted(folder.glob("*.yaml"))} if shipped else {}


def groups(model: str = "") -> dict[str, list[str]]:
    """Names of groups and their recipes.

    ``all-ptq`` is every preset and the model's committed allocations; the others are methods.
    """
    import quant

    presets = quant.list_presets()
    found = {}
    for method in quant.list_methods():
        found[method.replace("_", "-")] = [p for p in presets if quant.get_preset(p).method == method]
    return {**found, ALL: list(dict.fromkeys([*presets, *allocations(model)]))}


def parse_known(name: str, model: str = "") -> bool:
    """Whether a recipe exists in this version."""
    from quant.errors import InputError as QuantInputError

    try:
        parse(name, model)
    except (InputError, QuantInputError):
        return False
    return True


def expand(words: str, model: str = "") -> list[Recipe]:
    """Turn ``A,B,…`` with groups and wildcards into a model's recipes, each once, in that order.

    Raises
    ------
    InputError
        A word is neither a preset nor a group, or matches nothing.
    """
    import quant

    known = groups(model)
    names: list[str] = []
    for word in (w.strip() for w in words.split(",")):
        if not word:
            continue
        if word in known:
            names += known[word]
        elif "*" in word or "?" in word:
            matches = quant.list_presets(word)
            if not matches:
                raise InputError(f"no preset matches {word!r}; see: brainlab list presets")
            names += matches
        else:
            names.append(_known_word(word, known, model))
    if not names:
        raise InputError(f"no recipes in {words!r}; give presets, wildcards or groups: {', '.join(known)}")
    return [parse(name, model) for name in dict.fromkeys(names)]


def _known_word(word: str, known: Sequence[str] | dict[str, Any], model: str) -> str:
    from quant.errors import InputError as QuantInputError

    try:
        parse(word, model)
    except QuantInputError as error:
        if CHANGE in word:
            raise
        raise InputError(f"{error}; groups: {', '.join(known)}") from None
    return word
