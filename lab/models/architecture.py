"""Which class of diffusers a model's files name, and the settings beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.errors import InputError, one_line


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file, with a one-line error."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({one_line(error)}): fetch it again") from None
    if not isinstance(data, dict):
        raise InputError(f"{path} holds a {type(data).__name__}, not the settings of a model")
    return data


def model_class(name: object, source: object) -> Any:
    """Class of diffusers by the name in a config; only diffusers' own models are ever built."""
    import diffusers

    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, diffusers.ModelMixin)):
        raise InputError(f"{source}: {name!r} is no model class of diffusers {diffusers.__version__}")
    return found
