"""Presets of adapters: recipes as `quant.recipes` has them, ``PRESET`` or ``PRESET+field=value+...``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quant import registry
from quant.errors import InputError
from quant.recipes import split


def preset_files() -> dict[str, tuple[str, Path]]:
    """Return adapter and file of every preset, by its name."""
    home = Path(__file__).parent
    return {
        file.stem: (name, file)
        for name in registry.ADAPTERS
        for file in sorted((home / name / "presets").glob("*.yaml"))
    }


def resolve(recipe: str) -> tuple[str, registry.Method, Any]:
    """Return name, adapter and validated config of a recipe.

    Raises
    ------
    InputError
        Unknown preset or setting, or a value out of bounds.
    """
    import yaml

    name, changes = split(recipe)
    files = preset_files()
    if name not in files:
        raise InputError(f"unknown adapter preset {name!r}; there are: {', '.join(files)}")
    owner, file = files[name]
    adapter = registry.get_adapter(owner)
    values = yaml.safe_load(file.read_text(encoding="utf-8")).get("config", {})
    return recipe, adapter, registry.validate(adapter, {**values, **changes})
