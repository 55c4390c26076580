"""From a file, flags and ``--set`` to checked settings, with one-line errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lab.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
MADE_FROM = "made_from"
"""Section of a run's config.yaml for hashes of what it was made from, which are not settings."""
_LISTED = 12
"""Names that a message lists."""


def resolve(
    model: type[Model],
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    sets: Iterable[str] = (),
    spelled: Mapping[str, str] | None = None,
) -> Model:
    """Merge settings and check them: defaults, then ``file``, then ``flags``, then ``sets``.

    Parameters
    ----------
    model : pydantic model class
        Names, types and bounds.
    file : Path, optional
        YAML or JSON.
    flags : mapping, optional
        Values given on the command line; None means not given.
    sets : iterable of str
        ``name=value`` pairs; dots reach into sections, values are read as YAML.
    spelled : mapping, optional
        How the command line spells a setting that was given as a flag, for messages.

    Raises
    ------
    InputError
        One line: the setting, its value, what is allowed.
    """
    content: dict[str, Any] = read_settings(file) if file else {}
    content.pop(MADE_FROM, None)  # a run's own file may be given again
    strange = sorted(content.keys() - model.model_fields.keys())
    if len(strange) > 1 and 2 * len(strange) > len(content):  # one is a word misspelled
        raise InputError(
            f"{file} holds settings of another command ({', '.join(strange[:3])}); give this one's"
        )
    content.update({name: value for name, value in (flags or {}).items() if value is not None})
    for pair in sets:
        _put(content, pair)
    return validated(model, content, spelled)


def validated(
    model: type[Model], content: Mapping[str, Any], spelled: Mapping[str, str] | None = None
) -> Model:
    """Check settings; raise `InputError` with one line: the setting, its value, what is allowed."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(explain_validation(model, error, spelled or {})) from None


def read_settings(file: Path) -> dict[str, Any]:
    """Read settings from YAML or JSON; raise `InputError` with the line where it breaks."""
    import yaml

    from quant.io import read_yaml

    try:
        content = read_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: no such settings file; --config wants YAML or JSON") from None
    except IsADirectoryError:
        raise InputError(
            f"{file} is a folder; --config wants a YAML or JSON file such as {file}/config.yaml"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not a text file; settings are YAML or JSON") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        raise InputError(
            f"{file}: not YAML or JSON{place} ({getattr(error, 'problem', None) or 'unreadable'})"
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{file}: expected settings as 'name: value', found {_short(content)}")
    return content


def describe_settings(
    model: type[BaseModel], prefix: str = "", start: BaseModel | None = None
) -> list[dict[str, Any]]:
    """List every setting with its default, bounds and meaning, for tables and forms.

    Returns
    -------
    list of dict
        Keys ``name``, ``default``, ``allowed``, ``help``; sections come as dotted names.
    """
    rows: list[dict[str, Any]] = []
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        default = getattr(start, name) if start else None
        if start is None and not field.is_required():
            default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            rows += describe_settings(type(default), f"{prefix}{name}.", default)
            continue
        schema = properties[name]
        rows.append(
            {
                "name": f"{prefix}{name}",
                "default": default,
                "allowed": _allowed(schema),
                "help": field.description,
            }
        )
    return rows


def explain_validation(
    model: type[BaseModel], error: ValidationError, spelled: Mapping[str, str] | None = None
) -> str:
    """Turn pydantic's first complaint into one line: setting, value, what is allowed, what to do."""
    first = error.errors(include_url=False)[0]
    names = [str(part) for part in first["loc"]]
    rows = {row["name"]: row for row in describe_settings(model)}
    # Unions append the tried type to the location; the longest known name is the setting meant.
    name = next(
        (".".join(names[:n]) for n in range(len(names), 0, -1) if ".".join(names[:n]) in rows),
        ".".join(names),
    )
    if first["type"] == "extra_forbidden":
        near = get_close_matches(name, rows, n=1)
        some = ", ".join(list(rows)[:_LISTED]) + (
            f" and {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
        )
        hint = f"did you mean {near[0]!r}?" if near else f"allowed: {some or 'none'}"
        return f"unknown setting {name!r}; {hint}"
    allowed = rows[name]["allowed"] if name in rows else ""
    name = (spelled or {}).get(name, name)
    if first["type"] == "missing":
        what = "option" if name.startswith("--") else "argument" if name.isupper() else "setting"
        return f"Missing {what} {name!r}; it must be given"
    if first["type"] == "model_type":
        return f"{name} is a section, not a value ({_short(first['input'])}); set {name}.NAME=VALUE instead"
    if first["type"] == "value_error":
        return f"{name or 'settings'}: {first['ctx']['error']}"
    must = f"must be {allowed}" if allowed else first["msg"].lower()
    message = f"{name}: {_short(first['input'])} is not allowed; {must}"
    near = get_close_matches(str(first["input"]), allowed.removeprefix("one of ").split(", "), n=1)
    return f"{message}; did you mean {near[0]!r}?" if near else message


def _put(content: dict[str, Any], pair: str) -> None:
    import yaml

    name, equals, text = pair.partition("=")
    name = name.strip()
    if not equals or not name:
        raise InputError(f"--set {pair!r}: expected name=value, such as --set strength=0.5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(
            f"--set {pair!r}: the value cannot be read; put text with special characters in quotes"
        ) from None
    *sections, last = name.split(".")
    for section in sections:
        inner = content.setdefault(section, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set {pair!r}: {section!r} is a single value, not a section")
        content[section] = inner = dict(inner)
        content = inner
    content[last] = value


def _allowed(schema: Mapping[str, Any]) -> str:
    options = [schema, *schema.get("anyOf", ())]
    for option in options:
        if "enum" in option:
            return "one of " + ", ".join(map(str, option["enum"]))
    kinds = [_KIND.get(option.get("type", ""), "") for option in options]
    kind = next((k for k in kinds if k), "")
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    bounded = next((option for option in options if any(key in option for key in words)), schema)
    limits = [f"{word} {_number(bounded[key])}" for key, word in words.items() if key in bounded]
    return " ".join([kind, " and ".join(limits)]).strip()


_KIND = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a section of name: value",
}


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
