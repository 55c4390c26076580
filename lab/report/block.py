"""A piece of a page: which template, with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.figures import Plate
from lab.figures.plate import Theme


@dataclass(frozen=True)
class Block:
    """One reportlet, ready to be rendered.

    Parameters
    ----------
    template : str
        File in ``templates/``, without its ending.
    context : mapping
        What the template needs, plain data.
    """

    template: str
    context: Mapping[str, Any] = field(default_factory=dict)


def sentence(text: str, quiet: bool = True) -> Block:
    """Return a paragraph, quiet if it only says what is missing."""
    return Block("sentence", {"text": text, "quiet": quiet})


def figure(draw: Callable[[Theme], Plate]) -> Block:
    """Return a figure drawn for light and for dark pages."""
    light, dark = draw("light"), draw("dark")
    width, height = light.figure.get_size_inches()
    context = {
        "light": light.uri("light"),
        "dark": dark.uri("light"),
        "alt": light.alt,
        "caption": light.caption,
    }
    return Block("figure", {**context, "width": round(width * 96), "height": round(height * 96)})


def table(rows: list[tuple[str, Any]], caption: str = "", folded: str = "") -> Block:
    """Return names and values as two columns; `folded` puts them behind a summary line."""
    return Block("pairs", {"rows": rows, "caption": caption, "folded": folded})
