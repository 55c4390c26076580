"""A page's state as a link, as JSON, as a command and as Python: each gives the same numbers.

A link's query is ``v=1&tab=NAME&...settings``. Whatever comes in through it passes the page's pydantic
settings and nothing else, so a crafted link can only ever be refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, ValidationError

from lab.errors import InputError
from lab.jobs.spelling import changed

VERSION = "1"
TABS = ("inspect", "plan", "compare", "brain", "runs", "kernels", "watermark")
"""Every page; a link that says nothing more opens it as it is."""


class OfRuns(BaseModel):
    """What a link to Runs says: the run whose report is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    run: str = ""


def as_link(page: str, settings: BaseModel) -> str:
    """Return the query string of a page in this state."""
    values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in changed(settings).items()}
    return "?" + urlencode({"v": VERSION, "tab": page, **values})


def as_json(settings: BaseModel) -> str:
    """Return all settings as a configuration file has them (``--config``)."""
    return settings.model_dump_json(indent=1)


def as_python(job: str, settings: BaseModel) -> str:
    """Return the Python that does the same; ``job`` is the command's name."""
    return (
        "from lab.jobs import registry\nfrom lab.jobs.contract import Context\n\n"
        f"settings = registry.settings({job!r}, {changed(settings)!r})\n"
        f"print(registry.run({job!r}, settings, Context()))\n"
    )


def read_link(
    query: Mapping[str, str], pages: Mapping[str, type[BaseModel]]
) -> tuple[str, BaseModel | None] | None:
    """Return the page and checked settings that a link names; None for an address without any.

    A link without any setting has the page alone.

    Raises
    ------
    InputError
        Another version, an unknown page, a field or a value that its settings do not allow.
    """
    if "tab" not in query:
        strange = next((k for k in query if k != "v" and not k.startswith("__")), None)
        if strange is None:
            return None
        raise InputError(
            f"the address names {strange[:40]!r}, which is not a link of this app: this is its first page; "
            f"?v={VERSION}&tab=NAME opens another: {', '.join(TABS)}"
        )
    version, page = query.get("v", ""), query["tab"]
    if version != VERSION:
        raise InputError(
            f"the link is of version {version[:12]!r}; this app reads version {VERSION}: copy it again"
        )
    if page not in TABS:
        raise InputError(f"the link names the page {page[:40]!r}; there are: {', '.join(TABS)}")
    given = {k: v for k, v in query.items() if k not in ("v", "tab") and not k.startswith("__")}
    if not given:
        return page, None
    if page not in pages:
        raise InputError(f"the link gives {next(iter(given))[:40]!r}; the page {page!r} takes no settings")
    fields = pages[page].model_fields
    values = {k: v if k in fields and fields[k].annotation is str else _value(v) for k, v in given.items()}
    try:
        return page, pages[page](**values)
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(str(x) for x in first["loc"])[:40]
        if first["type"] == "missing":
            raise InputError(
                f"the link does not say {where!r}, which this page needs; copy the link again"
            ) from None
        raise InputError(
            f"the link's {where!r} is not allowed: {first['msg']}; copy the link again"
        ) from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
