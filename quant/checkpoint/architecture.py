"""Which model a file belongs to: its class and its config, compared where the bare model has a config.

Layer names and shapes do not tell one architecture from another: activation functions, head counts and the
order of sine and cosine leave no trace in them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from quant.errors import InputError

_PROVENANCE = {"architectures", "dtype", "torch_dtype", "transformers_version"}
"""Settings of a config that say where weights come from, not what the model computes."""

_SHOWN = 3
"""Differing settings that an error names."""


class Architecture(BaseModel):
    """Class and config of the model that was exported."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model_class: str
    config: dict[str, Any] | None = Field(default=None, description="None: the model has no config")


def describe(model: nn.Module) -> Architecture:
    """Class name, and what of ``model.config`` is plain JSON and no provenance (names, paths, versions)."""
    return Architecture(model_class=type(model).__name__, config=_settings(model))


def check_architecture(model: nn.Module, stored: Architecture, path: object) -> None:
    """Insist on the same class and settings, if file and model both have a config.

    A setting that only one of the two knows is passed over: libraries add settings from version to version.

    Raises
    ------
    InputError
        Names the first settings that differ.
    """
    own = describe(model)
    if stored.config is None or own.config is None:
        return
    start = f"{path} is for another architecture ({stored.model_class}):"
    if stored.model_class != own.model_class:
        raise InputError(f"{start} this model is a {own.model_class}; build a {stored.model_class}")
    common = sorted(set(stored.config) & set(own.config))
    differ = [name for name in common if stored.config[name] != own.config[name]]
    if differ:
        named = ", ".join(
            f"{name} is {_short(stored.config[name])} in the file, {_short(own.config[name])} in this model"
            for name in differ[:_SHOWN]
        )
        more = f", and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
        raise InputError(f"{start} {named}{more}; build the model with the file's settings")


def _settings(model: nn.Module) -> dict[str, Any] | None:
    config: Any = getattr(model, "config", None)
    if not isinstance(config, Mapping) and callable(getattr(config, "to_dict", None)):
        config = config.to_dict()
    if not isinstance(config, Mapping):
        return None
    found = {}
    for name, value in config.items():
        if isinstance(name, str) and not name.startswith("_") and name not in _PROVENANCE:
            try:  # through JSON, so that tuples compare equal to the lists that a file holds
                found[name] = json.loads(json.dumps(value, allow_nan=False))
            except (TypeError, ValueError, RecursionError):
                continue
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
