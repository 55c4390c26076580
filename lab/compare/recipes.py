"""Names of recipes: presets, presets with changes, wildcards, groups."""

from __future__ import annotations

import shlex
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
CLAIMS = "claims"
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

    ``claims`` is whatever the orderings of this model name, ``chain:ID`` one ordering's; ``all-ptq`` every
    preset, the claims and the model's committed allocations; the others are methods.
    """
    import quant
    from lab.compare.orderings import load_orderings

    presets = quant.list_presets()
    found = {}
    for method in quant.list_methods():
        found[method.replace("_", "-")] = [p for p in presets if quant.get_preset(p).method == method]
    claims = [o for o in load_orderings() if o.concerns(model)]
    chains = {o.id: [r for r in o.every if parse_known(r, model)] for o in claims}
    found[CLAIMS] = list(dict.fromkeys(r for o in claims if not o.study for r in chains[o.id]))
    found[ALL] = list(dict.fromkeys([*presets, *found[CLAIMS], *allocations(model)]))
    return found | {f"chain:{name}": chain for name, chain in chains.items()}


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


def one_command(commands: Sequence[str]) -> str:
    """Return the command that measures what several measured together; whole groups go by their name.

    Parameters
    ----------
    commands : sequence of str
        ``brainlab compare MODEL --recipes ... ``, with equal settings.
    """
    split = [shlex.split(command) for command in dict.fromkeys(commands)]
    if len(split) == 1 or not all("--recipes" in words for words in split):
        return "; ".join(dict.fromkeys(commands))
    known = groups(split[0][2])
    wanted = [words[words.index("--recipes") + 1].split(",") for words in split]
    names = list(dict.fromkeys(name for row in wanted for word in row for name in known.get(word, [word])))
    short = next(([group] for group in (ALL, CLAIMS) if known[group] and set(known[group]) <= set(names)), [])
    names = [name for name in names if not any(name in known[group] for group in short)]
    shared = [words for words in split[0] if all(words in other for other in split)]
    at = shared.index("--recipes") + 1
    return shlex.join([*shared[:at], ",".join([*short, *names]), *shared[at:]])


def _known_word(word: str, known: Sequence[str] | dict[str, Any], model: str) -> str:
    from quant.errors import InputError as QuantInputError

    try:
        parse(word, model)
    except QuantInputError as error:
        if CHANGE in word:
            raise
        short = [group for group in known if not group.startswith("chain:")]
        raise InputError(f"{error}; groups: {', '.join(short)}") from None
    return word
