"""A recipe as a table that can be edited, and back; going back over what was applied."""

from __future__ import annotations

import pytest

pytest.importorskip("gradio")

import gradio as gr

from lab.app.plan import page
from lab.app.plan.card import card_of
from lab.app.plan.form import form_of, recipe_from
from quant.errors import InputError


@pytest.mark.parametrize("recipe", ["rtn-w4a4", "svdquant-w4a4", "mixdq-w8a8", "svdquant-w4a4+rank=16"])
def test_a_form_that_nobody_edits_says_the_same_recipe(recipe: str) -> None:
    assert recipe_from(form_of(recipe), recipe) == recipe


def test_an_edit_is_written_into_the_recipe_and_back() -> None:
    rows = form_of("svdquant-w4a4")
    assert all(len(row) == 4 and row[3] for row in rows)  # every setting says what it is
    rank = next(row for row in rows if row[0] == "rank")
    rank[1] = "8"
    assert recipe_from(rows, "svdquant-w4a4") == "svdquant-w4a4+rank=8"
    assert next(row for row in form_of("svdquant-w4a4+rank=8") if row[0] == "rank")[1] == "8"
    rank[1] = "32"
    assert recipe_from(rows, "svdquant-w4a4+rank=8") == "svdquant-w4a4"
    rank[1] = "-3"
    with pytest.raises(InputError, match="rank"):
        recipe_from(rows, "svdquant-w4a4")


def test_nonsense_is_answered_beside_the_recipe_and_taken_back_by_the_next_edit() -> None:
    rows = form_of("svdquant-w4a4")
    rank = next(row for row in rows if row[0] == "rank")
    rank[1] = "many*"
    answers = page.edited(rows, "svdquant-w4a4")
    recipe, words = next(answers)
    assert recipe == gr.skip() and words.startswith("**Not done:**") and r"rank = 'many\*'" in words
    with pytest.raises(gr.Error, match="rank"):  # so that nothing is planned
        next(answers)
    rank[1] = "8"
    assert list(page.edited(rows, "svdquant-w4a4")) == [["svdquant-w4a4+rank=8", ""]]


def test_a_recipe_that_does_not_exist_leaves_the_table_and_says_why() -> None:
    table, words = page.chosen("nosuch-w4a4")
    assert table == gr.skip() and words.startswith("**Not done:**") and "nosuch-w4a4" in words
    assert page.chosen("rtn-w4a4") == [form_of("rtn-w4a4"), ""]


def test_undo_goes_back_one_step_at_a_time() -> None:
    one, two = (["dit-64", name, "", "", ""] for name in ("rtn-w8a8", "rtn-w4a4"))
    left, shown, words = page.undone([one, two])
    assert left == [one] and shown == one and "rtn-w8a8 on dit-64" in words
    left, _, words = page.undone(left)
    assert left == [] and words.startswith("Full precision again")
    assert page.undone([])[2] == "Nothing was applied yet."


def test_the_card_of_a_recipes_method_has_no_link_that_leads_nowhere() -> None:
    words = card_of("svdquant-w4a4+rank=8")
    assert words.startswith("# SVDQuant") and "](" not in words.replace("](http", "")
    with pytest.raises(InputError, match="nosuch"):
        card_of("nosuch-w4a4")
