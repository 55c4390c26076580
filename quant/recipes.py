"""A recipe is a string: ``PRESET``, ``PRESET+field=value+...``, or a preset's YAML file; everywhere the same.

Where several recipes are taken, commas stand between them, and wildcards and the names of groups (of methods,
such as ``svdquant``) stand for all their presets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from quant import registry
from quant.errors import InputError
from quant.registry import Method, MethodInfo

CHANGE = "+"
PRESET_FILES = (".yaml", ".yml")


@dataclass(frozen=True)
class Recipe:
    """A preset, or one with changed settings; `parse` makes and checks it.

    Parameters
    ----------
    name : str
        ``PRESET`` or ``PRESET+field=value+...``; a preset's file goes by its stem.
    preset : str
        Name, or the file.
    changes : mapping
        Settings that differ from the preset.
    """

    name: str
    preset: str
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """Name of the method."""
        return registry.get_preset(self.preset).method

    @property
    def policy(self) -> str:
        """Whose policy it follows: "paper" or "common"."""
        return registry.get_preset(self.preset).policy

    @property
    def info(self) -> MethodInfo:
        """What the method says of itself."""
        return registry.get_method(self.method).info

    @property
    def calibrates(self) -> bool:
        """Whether the method needs recorded sampling."""
        return self.info.needs_calibration

    @property
    def trains(self) -> bool:
        """Whether the method trains something."""
        return self.info.needs_gradients

    def config(self) -> BaseModel:
        """Return the validated config of the method.

        Raises
        ------
        InputError
            Unknown preset or setting, or a value out of bounds.
        """
        preset = registry.get_preset(self.preset)
        method = registry.get_method(preset.method)
        config = registry.validate(method, preset.config)
        for name in self.changes:
            if name not in method.config.model_fields:
                near = get_close_matches(name, method.config.model_fields, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"see: brainlab list methods {method.name}"
                raise InputError(f"recipe {self.name!r}: {method.name} has no setting {name!r}; {hint}")
        return registry.validate(method, {**config.model_dump(), **self.changes}) if self.changes else config


def parse(name: str | Path, names: Mapping[str, str] | None = None) -> Recipe:
    """Read one recipe; checks preset, settings and values.

    Parameters
    ----------
    name : str or Path
    names : mapping, optional
        Further names and the preset files that they stand for.

    Raises
    ------
    InputError
        Unknown preset or setting, with the closest name; a value out of bounds; a file under the name of a
        shipped preset that says something else.
    MissingDataError
        No such preset file.

    Examples
    --------
    >>> parse("rtn-w8a8+weight_bits=3").changes
    {'weight_bits': 3}
    """
    preset, changes = split(str(name))
    words = str(name).split(CHANGE)[1:]
    preset = (names or {}).get(preset, preset)
    if preset.endswith(PRESET_FILES):  # a preset that a method saved is known by its file's name
        name = CHANGE.join([Path(preset).stem, *words])
        _refuse_shipped_name(preset)
    recipe = Recipe(str(name), preset, changes)
    recipe.config()
    return recipe


def _refuse_shipped_name(file: str) -> None:
    """Refuse a file that would stand in tables and ledgers under a shipped preset's name and is another."""
    stem = Path(file).stem
    if stem not in registry.list_presets():
        return
    found, shipped = Recipe(stem, file), Recipe(stem, stem)
    if (found.method, found.config()) != (shipped.method, shipped.config()):
        raise InputError(
            f"{file} has the name of the shipped preset {stem!r} and says something else; rename the file"
        )


def split(recipe: str) -> tuple[str, dict[str, Any]]:
    """Return a recipe's preset and its changes, their values read as YAML.

    Raises
    ------
    InputError
        What follows a plus is no ``field=value``, or has no value; a field stands twice.
    """
    preset, *words = recipe.split(CHANGE)
    return preset, changes(words, f"recipe {recipe!r}", "PRESET+field=value")


def changes(words: Iterable[str], where: str, form: str) -> dict[str, Any]:
    """Return what ``field=value`` words change, values read as YAML.

    Parameters
    ----------
    words : iterable of str
    where, form : str
        What they stand in and how that is written, for messages.

    Raises
    ------
    InputError
        A word is no ``field=value``, or has no value; a field stands twice.
    """
    import yaml

    found: dict[str, Any] = {}
    for word in words:
        field, equals, value = word.partition("=")
        if not equals or not field:
            raise InputError(f"{where}: {word!r} is no change; write {form}")
        if field in found:
            raise InputError(f"{where}: {field} is given twice; leave one away")
        if not value.strip():  # YAML takes it for null, as inputs in floating point
            raise InputError(f"{where}: {field} has no value; give one, or write {field}=null for none")
        try:
            found[field] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise InputError(
                f"{where}: {value!r} is no value for {field}; give a number, true or a name"
            ) from None
    return found


def resolve(recipe: str | Path | BaseModel) -> tuple[str, Method, BaseModel]:
    """Return name, method and validated config of a recipe, or of a method's config object.

    Raises
    ------
    InputError, MissingDataError
        As `parse`; or an object that is no method's config.
    """
    if isinstance(recipe, str | Path):
        read = parse(recipe)
        return read.name, registry.get_method(read.method), read.config()
    for name in registry.NAMES:
        chosen = registry.get_method(name)
        if type(recipe) is chosen.config:
            return name, chosen, recipe
    raise InputError(f"a recipe is a preset name or a method's config, got {type(recipe).__name__}")


def groups() -> dict[str, list[str]]:
    """Return the presets of every method, under its name with hyphens."""
    presets = registry.list_presets()
    return {
        method.replace("_", "-"): [p for p in presets if registry.get_preset(p).method == method]
        for method in registry.list_methods()
    }


def expand(
    words: str | Sequence[str],
    known: Mapping[str, Sequence[str]] | None = None,
    names: Mapping[str, str] | None = None,
) -> list[Recipe]:
    """Turn ``A,B,...`` with groups and wildcards into recipes, in that order.

    What a group or wildcard brings once more is taken once; a recipe that is written twice is refused.

    Parameters
    ----------
    words : str or sequence of str
        With commas between, or already apart.
    known : mapping, optional
        Groups; default `groups`.
    names : mapping, optional
        As for `parse`.

    Raises
    ------
    InputError
        A word is neither a recipe nor a group, matches nothing, is given twice, or has the name of another.
    """
    known = groups() if known is None else known
    given = words.split(",") if isinstance(words, str) else words
    found: dict[str, Recipe] = {}
    written: dict[str, Recipe] = {}
    for word in (w.strip() for w in given):
        if not word:
            continue
        if word in known:
            some = [parse(name, names) for name in known[word]]
        elif "*" in word or "?" in word:
            some = [parse(name) for name in registry.list_presets(word)]
            if not some:
                raise InputError(f"no preset matches {word!r}; see: brainlab list presets")
        else:
            some = [_single(word, known, names)]
            _refuse_twice(some[0], written)
            written[some[0].name] = some[0]
        for recipe in some:
            before = found.setdefault(recipe.name, recipe)
            if before.preset != recipe.preset and before.config() != recipe.config():
                raise InputError(
                    f"recipe {recipe.name!r} stands for two, {before.preset} and {recipe.preset}; "
                    "rename one of the files"
                )
    if not found:
        raise InputError(
            f"no recipes in {','.join(given)!r}; give presets (brainlab list presets), wildcards or groups"
        )
    return list(found.values())


def _single(word: str, known: Mapping[str, Sequence[str]], names: Mapping[str, str] | None) -> Recipe:
    try:
        return parse(word, names)
    except InputError:
        near = get_close_matches(word, [*known, *registry.list_presets()], n=1)
        if near and near[0] in known:
            raise InputError(f"unknown recipe {word!r}; did you mean the group {near[0]!r}?") from None
        raise


def _refuse_twice(recipe: Recipe, before: Mapping[str, Recipe]) -> None:
    for other in before.values():
        if other.method == recipe.method and other.config() == recipe.config():
            same = "" if other.name == recipe.name else f" (as {other.name!r})"
            raise InputError(f"recipe {recipe.name!r} is given twice{same}; leave one away")
