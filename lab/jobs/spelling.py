"""A job's settings as the command line that gives them: for next steps, for copying, for reports."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel


def changed(settings: BaseModel) -> dict[str, Any]:
    """Return the fields that differ from their defaults, in order, as JSON has them."""
    fields = type(settings).model_fields
    values = settings.model_dump(mode="json")
    defaults = type(settings).model_construct().model_dump(mode="json", warnings=False)
    return {k: v for k, v in values.items() if fields[k].is_required() or v != defaults[k]}


def as_command(
    job: str, settings: BaseModel, positional: str | None = None, always: Sequence[str] = ()
) -> str:
    """Return the command line that gives these settings.

    Parameters
    ----------
    job : str
        Its name, as "brain bits".
    settings : pydantic model
        Defaults are left out.
    positional : str, optional
        The field that stands without a flag; default: those that say so of themselves.
    always : sequence of str
        Fields that are written although they are defaults.
    """
    fields = type(settings).model_fields
    values = settings.model_dump(mode="json", include={*changed(settings), *always})
    extra: dict[str, Any] = {name: field.json_schema_extra or {} for name, field in fields.items()}
    bare = [positional] if positional else [name for name in fields if extra[name].get("argument")]
    words = ["brainlab", *job.split()]
    for name in bare:
        value = settings.model_dump(mode="json")[name]
        values.pop(name, None)
        words += value if isinstance(value, list) else [] if value is None else [str(value)]
    for name, value in values.items():
        words += _spelled(name, value, extra[name])
    return shlex.join(words)


def _spelled(name: str, value: Any, about: Mapping[str, Any]) -> list[str]:
    flag = about.get("flag") or name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, dict) or value is None:
        return ["--set", f"{name}={json.dumps(value)}"]
    if isinstance(value, list):
        each = [str(item) for item in value] if about.get("repeat") else [",".join(map(str, value))]
    else:
        each = [value if isinstance(value, str) else json.dumps(value)]
    return [word for item in each for word in (f"--{flag}", item)]
