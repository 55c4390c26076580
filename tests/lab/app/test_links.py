"""A page's state as a link, a command, Python and JSON: all say the same, and a crafted link is refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from pydantic import BaseModel

from lab.app import links
from lab.cli.commands import tree
from lab.cli.options import SHARED
from lab.errors import InputError
from lab.jobs import registry
from lab.jobs.brain import decode
from lab.jobs.models import plan, variants, whatif
from lab.jobs.spelling import as_command

PAGES: dict[str, type[BaseModel]] = {
    "inspect": whatif.Settings, "plan": plan.Settings, "compare": variants.Settings, "brain": decode.Settings,
    "runs": links.OfRuns,
}  # fmt: skip
STATES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("inspect", "whatif", "model", {"model": "unet-64", "layer": "mid.0", "bits": 5, "clip": 0.35}),
    ("inspect", "whatif", "model", {"layer": "12"}),
    ("plan", "plan", "model", {"model": "dit-64", "recipe": "rtn-w4a4+rank=3",
                               "include": ("a.*", "b,c"), "override": ("*ff*:skip",)}),
    ("compare", "variants", "model", {"recipes": ("rtn-w4a4", "svdquant-w4a4"), "guidance": 1.5, "seed": 3}),
    ("compare", "variants", "model", {"native": True, "n": 1}),
    ("brain", "brain decode", "folder", {"folder": Path("runs/a b"), "trials": "3,1", "mask": "V1 & V2"}),
]  # fmt: skip


@pytest.mark.parametrize(("page", "job", "positional", "values"), STATES)
def test_every_form_of_a_state_gives_the_same_settings(
    page: str, job: str, positional: str, values: dict[str, Any]
) -> None:
    settings = registry.settings(job, values)
    query = dict(parse_qsl(links.as_link(page, settings)[1:]))
    assert links.read_link(query, PAGES) == (page, settings)
    assert PAGES[page].model_validate_json(links.as_json(settings)) == settings
    assert _typed(job, as_command(job, settings, positional)) == settings
    space: dict[str, Any] = {}
    exec(links.as_python(job, settings).split("print(")[0], space)
    assert space["settings"] == settings


def _typed(job: str, command: str) -> Any:
    """Parse a command line as ``brainlab`` does and return its settings."""
    _, *words = shlex.split(command)
    found: Any = tree()
    for _ in job.split():
        found = found.commands[words.pop(0)]
    found.make_ready()
    given = found.make_context(job, words).params
    given = {k: v for k, v in given.items() if k not in SHARED and v is not None and v != ()}
    return registry.settings(job, given)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"v": "9", "tab": "inspect"}, "version '9'"),
        ({"tab": "inspect"}, "version ''"),
        ({"page": "x"}, "the address names 'page', which is not a link of this app: this is its first page"),
        ({"v": "1", "tab": "<script>"}, "there are: inspect, plan, compare, brain"),
        ({"v": "1", "tab": "inspect", "bits": "900"}, "'bits' is not allowed"),
        ({"v": "1", "tab": "inspect", "clip": "NaN"}, "'clip' is not allowed"),
        ({"v": "1", "tab": "inspect", "__class__": "x", "run": "rm"}, "'run' is not allowed"),
        ({"v": "1", "tab": "compare", "recipes": "[" * 100_000}, ""),
        ({"v": "1", "tab": "brain", "trials": "1"}, "the link does not say 'folder'"),
        (
            {"v": "1", "tab": "kernels", "run": "x"},
            "the link gives 'run'; the page 'kernels' takes no settings",
        ),
        ({"v": "1", "tab": "runs", "seed": "1"}, "'seed' is not allowed"),
        ({"v": "1", "tab": "brain", "folder": "x", "trials": "a"}, "'trials' is not allowed"),
    ],
)
def test_a_link_that_is_not_allowed_is_refused_in_one_sentence(query: dict[str, str], words: str) -> None:
    if not words:  # a name that no recipe has; drawing refuses it
        assert links.read_link(query, PAGES)
        return
    with pytest.raises(InputError, match="link") as fault:
        links.read_link(query, PAGES)
    assert words in str(fault.value) and "\n" not in str(fault.value) and len(str(fault.value)) < 300


def test_a_plain_address_is_not_a_link() -> None:
    assert links.read_link({}, PAGES) is None and links.read_link({"__theme": "dark"}, PAGES) is None


@pytest.mark.parametrize("page", links.TABS)
def test_a_link_of_a_page_alone_opens_it(page: str) -> None:
    assert links.read_link({"v": "1", "tab": page, "__theme": "dark"}, PAGES) == (page, None)


def test_json_is_a_configuration_file(tmp_path: Path) -> None:
    settings = registry.settings("whatif", {"bits": 6})
    file = tmp_path / "state.json"
    file.write_text(links.as_json(settings))
    assert registry.settings("whatif", file=file) == settings and json.loads(file.read_text())["bits"] == 6
