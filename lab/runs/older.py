"""Run folders of earlier versions: a setting that came later has its default there.

A folder's ``config.yaml`` is complete when it is written, so a setting that it lacks did not exist then, and
what came later does what was done before unless it is set. Only a setting's *own* default counts: what
presets and starting points lay over it may be newer than the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from lab.runs.settings import MADE_FROM, read_settings, validated

Model = TypeVar("Model", bound=BaseModel)


def complete(model: type[BaseModel], content: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with defaults for those that a run's file does not have.

    Parameters
    ----------
    model : pydantic model class
        The settings of today.
    content : mapping
        What the file says; the names that `model` does not know stay, for whoever checks them.

    Returns
    -------
    dict
        As plain as JSON; a setting without a default stays missing.
    """
    out, defaults = dict(content), model.model_construct().model_dump(mode="json", warnings=False)
    for name, field in model.model_fields.items():
        kind = type(getattr(model.model_construct(), name, None))
        section = kind if issubclass(kind, BaseModel) else field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            if isinstance(out.get(name, {}), Mapping):
                out[name] = complete(section, out.get(name, {}))
        elif name not in out and not field.is_required():
            out[name] = defaults[name]
    return out


def open_settings(model: type[Model], file: Path) -> Model:
    """Read the settings of a run folder, whatever version wrote it.

    Raises
    ------
    InputError
        One line: the setting, its value, what is allowed.
    """
    content = read_settings(file)
    content.pop(MADE_FROM, None)
    return validated(model, complete(model, content))
