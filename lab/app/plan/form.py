"""A recipe's settings as a table that can be edited, made from its method's config, and back to a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HEADERS = ["setting", "value", "allowed", "what it is"]


def presets() -> list[tuple[str, str]]:
    """Titles and names of all presets, for a list to choose from."""
    import quant

    return [(f"{name}: {quant.get_preset(name).title}", name) for name in quant.list_presets()]


def form_of(recipe: str) -> list[list[str]]:
    """Rows of a recipe's settings: name, value, what is allowed, what it is; those that are one value.

    Raises
    ------
    InputError
        No such recipe.
    """
    from quant import recipes

    config = recipes.parse(recipe).config()
    schema = type(config).model_json_schema()["properties"]
    rows = []
    for name, value in config.model_dump(mode="json").items():
        if isinstance(value, dict | list):
            continue
        about = schema[name]
        rows.append([name, _word(value), _allowed(about), about.get("description", "")])
    return rows


def recipe_from(rows: Sequence[Sequence[Any]], recipe: str) -> str:
    """Return the recipe that an edited table says, checked: ``PRESET`` or ``PRESET+setting=value+...``.

    Raises
    ------
    InputError
        A value that is not allowed.
    """
    from quant import recipes

    preset = recipes.parse(recipe).preset
    before = {name: value for name, value, *_ in form_of(preset)}
    changes = [f"{name}={value}" for name, value, *_ in rows if _word(value) != before.get(name)]
    found = recipes.CHANGE.join([preset, *changes])
    recipes.parse(found).config()
    return found


def _word(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _allowed(about: dict[str, Any]) -> str:
    kinds = [about, *about.get("anyOf", ())]
    for kind in kinds:
        if "enum" in kind:
            return ", ".join(map(str, kind["enum"]))
    low, high = (
        next((kind[edge] for kind in kinds for edge in edges if edge in kind), None)
        for edges in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
    )
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    if low is not None or high is not None:
        return f"{low:g} or more" if low is not None else f"up to {high:g}"
    return "true, false" if any(kind.get("type") == "boolean" for kind in kinds) else ""
