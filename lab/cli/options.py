"""Options of a command, made from the `Settings` of its job: one for each field, and four for every job.

Imports pydantic models, so it runs only where a command runs or its own help is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from pydantic import BaseModel

SHARED = ("config", "set", "dry_run", "json")


def options(model: type[BaseModel]) -> list[click.Parameter]:
    """Return arguments and options of a command.

    A section of settings (a nested model, a mapping) has no flag: ``--set section.name=value`` reaches it.

    Parameters
    ----------
    model : pydantic model class
        With fields that `lab.jobs.contract.setting` declared, or plain ones with a description.
    """
    found: list[click.Parameter] = []
    whole = model.model_json_schema()
    for name, schema in whole["properties"].items():
        kind, choices = _kind(schema)
        if kind in ("object", "") and not choices:
            continue
        if name in whole.get("required", ()):
            schema["required"] = True
        found.append(_parameter(name, schema, kind, choices))
    return [*found, *_shared()]


class Argument(click.Argument):
    """An argument that says what it is: ``about`` has its ``name`` and ``help``."""

    def __init__(self, names: list[str], about: Mapping[str, str], **more: Any) -> None:
        super().__init__(names, **more)
        self.about = about


def spelling(model: type[BaseModel]) -> dict[str, str]:
    """Return how each setting is written on the command line."""
    return {
        name: name.upper() if schema.get("argument") else f"--{_flag(name, schema)}"
        for name, schema in model.model_json_schema()["properties"].items()
    }


def _parameter(name: str, schema: Mapping[str, Any], kind: str, choices: str) -> click.Parameter:
    several = kind == "array"
    if schema.get("argument"):
        # required ones may also stand in --config, so that the check comes after
        metavar = name.upper() + ("..." if several else "")
        usage = metavar if schema.get("required") else f"[{metavar}]"
        said = {"name": metavar, "help": _help({**schema, "required": False})}
        return Argument([name], said, required=False, nargs=-1 if several else 1, metavar=usage)
    flag = _flag(name, schema)
    spelled = [name, f"--{flag}", *([schema["short"]] if schema.get("short") else [])]
    about: dict[str, Any] = {"help": _help(schema), "hidden": bool(schema.get("hidden")), "default": None}
    if kind == "boolean":
        if schema.get("default"):
            spelled[1] += f"/--no-{flag}"
        return click.Option(spelled, is_flag=True, **about)
    if several:
        repeat = bool(schema.get("repeat"))
        return click.Option(spelled, multiple=repeat, metavar="TEXT" if repeat else "A,B,...", **about)
    kinds: dict[str, Any] = {"integer": click.INT, "number": click.FLOAT}
    metavar = choices or {"integer": "N", "number": "X"}.get(kind, "TEXT")
    if schema.get("format") == "path" or any(o.get("format") == "path" for o in schema.get("anyOf", ())):
        metavar = "PATH"
    return click.Option(spelled, type=kinds.get(kind, click.STRING), metavar=metavar, **about)


def _shared() -> list[click.Parameter]:
    return [
        click.Option(["config", "--config"], metavar="FILE", help="settings of this command, YAML or JSON"),
        click.Option(
            ["set", "--set"], multiple=True, metavar="NAME=VALUE", help="any setting by name; may be repeated"
        ),
        click.Option(["dry_run", "--dry-run"], is_flag=True, help="say what would be done, and do nothing"),
        click.Option(["json", "--json"], is_flag=True, help="print the whole result as JSON on stdout"),
    ]


def _flag(name: str, schema: Mapping[str, Any]) -> str:
    return schema.get("flag") or name.replace("_", "-")


def _kind(schema: Mapping[str, Any]) -> tuple[str, str]:
    """Return the JSON type of a field and the words that it can be."""
    for option in (schema, *schema.get("anyOf", ())):
        if "enum" in option or "const" in option:
            return "string", "|".join(map(str, option.get("enum", [option.get("const")])))
    for option in (schema, *schema.get("anyOf", ())):
        if option.get("type") not in (None, "null"):
            return option["type"], ""
    return "", ""


def _help(schema: Mapping[str, Any]) -> str:
    words = [schema.get("description", "")]
    facts = [schema["unit"]] if schema.get("unit") else []
    if schema.get("repeat"):
        facts.append("may be repeated")
    if schema.get("required"):
        facts.append("required")
    default = schema.get("default")
    if default not in (None, "", []) and not isinstance(default, bool):
        shown = ",".join(map(str, default)) if isinstance(default, list) else str(default)
        facts.append(f"default {shown}")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None and high < 2**31 - 1:
        facts.append(f"{low} to {high}")
    return f"{words[0]}  [{'; '.join(facts)}]" if facts else words[0]
