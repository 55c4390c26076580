"""Groups of recipes that a comparison knows: methods, claims, committed allocations."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from lab import zoo
from quant import recipes
from quant.errors import InputError
from quant.recipes import Recipe

FULL = "full-precision"
OTHER_SEED = "full-precision, other seeds"
ALL = "all-ptq"
CLAIMS = "claims"


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
    found = recipes.groups()
    claims = [o for o in load_orderings() if o.concerns(model)]
    chains = {o.id: [r for r in o.every if parse_known(r, model)] for o in claims}
    found[CLAIMS] = list(dict.fromkeys(r for o in claims if not o.study for r in chains[o.id]))
    found[ALL] = list(dict.fromkeys([*presets, *found[CLAIMS], *allocations(model)]))
    return found | {f"chain:{name}": chain for name, chain in chains.items()}


def parse_known(name: str, model: str = "") -> bool:
    """Whether a recipe exists in this version."""
    try:
        recipes.parse(name, allocations(model))
    except InputError:
        return False
    return True


def expand(words: str | Sequence[str], model: str = "") -> list[Recipe]:
    """Turn ``A,B,…`` with groups and wildcards into a model's recipes, each once, in that order.

    Raises
    ------
    InputError
        A word is neither a recipe nor a group, matches nothing, or is given twice.
    """
    return recipes.expand(words, groups(model), allocations(model))


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
