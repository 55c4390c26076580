"""The fold that shows the card of a recipe's method: its paper, what is reproduced, what was changed."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr

from lab.app.work import failed
from lab.jobs.contract import Context

_LINK = re.compile(r"!?\[([^\]]+)\]\((?!https?:)(?:\.\./)*([^)]*)\)")


def card_of(recipe: str) -> str:
    """Return the card of a recipe's method as Markdown; links into the repository become paths.

    Raises
    ------
    InputError
        No such recipe.
    """
    from lab.jobs import registry
    from quant import get_preset, recipes

    method = get_preset(recipes.parse(recipe).preset).method
    asked = registry.settings("list", {"what": "methods", "pattern": method})
    found: Any = registry.run("list", asked, Context())
    return _LINK.sub(r"\1 (`\2`)", found.card)


def build(recipe: Any) -> None:
    """Lay the fold out; the card is read when it is opened, and with every other recipe.

    Parameters
    ----------
    recipe : gradio component
        Which says the recipe.
    """
    title = "Card of this method: its paper, what holds on our models, what was changed and why"
    with gr.Accordion(title, open=False, elem_id="method-card") as fold:
        text = gr.Markdown(elem_classes="card")

    def card_or_why(recipe: str) -> str:
        try:
            return card_of(recipe)
        except Exception as fault:
            return failed(fault)

    gr.on([fold.expand, recipe.change], card_or_why, recipe, text, api_visibility="private",
          show_progress="hidden", concurrency_limit=None)  # fmt: skip
