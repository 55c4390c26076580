"""Plan and apply: what a recipe would do to every layer, doing it, and going back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from lab.app.copying import copies, copy_box, in_address
from lab.app.places import local
from lab.app.plan import card
from lab.app.plan.form import HEADERS, form_of, presets, recipe_from
from lab.app.work import BRIEF, answer, canceller, checked, failed, refusal, stream
from lab.jobs import registry
from lab.jobs.contract import Context
from lab.jobs.models import plan, quantize

PLAN_HEADERS = ["layer", "bits", "kB before", "kB after", "runs here", "why it is left alone, or a note"]
ALONE = "Compare and Brain take the recipe alone: the wildcards are in the files that were written."
START = "svdquant-w4a4"
WAIT = "*Planning ... the first plan of a model takes some seconds.*"


def plan_settings(
    model: str, recipe: str, include: str, exclude: str, override: str, native: bool = False
) -> plan.Settings:  # fmt: skip
    """Check what the controls say; wildcards stand one per line."""
    return plan.Settings(
        model=local(model), recipe=recipe, include=_lines(include), exclude=_lines(exclude),
        override=_lines(override), native=native,
    )  # fmt: skip


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in (text or "").splitlines() if line.strip())


def plan_rows(result: plan.Result) -> list[list[Any]]:
    """Rows of the plan's table."""
    return [
        [row["layer"], row["bits"] or "-", round(row["bytes before"] / 1e3, 1),
         round(row["bytes after"] / 1e3, 1), row["here"].partition(":")[0], row["note"]]
        for row in result.layers
    ]  # fmt: skip


def totals(result: plan.Result, what: str) -> str:
    """Totals as a small table, with the word *simulated* beside the bits."""
    rows = [(row["name"], row["value"]) for row in plan.totals_table(result.totals).rows]
    paths = plan.paths_table(result.layers).rows
    rows += [(f"{row['layers']} layer{'s' * (row['layers'] != 1)} here", row["path here"]) for row in paths]
    first, *rest = [f"| {name} | {value} |\n" for name, value in rows]
    return f"**{what}**\n\n{first}|---|---|\n" + "".join(rest)


def undone(history: list[list[str]]) -> tuple[list[list[str]], list[Any], str]:
    """Take the last step back: the history left, what the controls show, and what to say."""
    left = history[:-1]
    if not history:
        return left, [gr.skip()] * 5, "Nothing was applied yet."
    if not left:
        return left, [gr.skip()] * 5, "Full precision again: Brain takes no recipe."
    return left, left[-1], f"Back at {left[-1][1]} on {left[-1][0]}: Compare and Brain take it."


def edited(rows: list[list[Any]], recipe: str) -> Iterator[list[Any]]:
    """Give the recipe that an edited table says and no words; or the one that stands, and why not."""
    try:
        found = [recipe_from(rows, recipe), ""]
    except Exception as fault:
        yield [gr.skip(), failed(fault)]
        raise refusal(fault, BRIEF) from None  # nothing is planned after it
    yield found


def chosen(recipe: str) -> list[Any]:
    """Return a recipe's table and no words; or the table that stands, and why there is none."""
    try:
        return [form_of(recipe), ""]
    except Exception as fault:
        return [gr.skip(), failed(fault)]


def build_plan(model: Any, home: Path, tab: Any) -> dict[str, Any]:
    """Lay out Plan and apply.

    Parameters
    ----------
    model : gradio component
        Which says the model.
    home : Path
        Folder of the runs.
    tab : gradio.Tab
        Where it lies; whoever comes to it finds a plan.
    """
    gr.Markdown(
        "What would a recipe do to every layer, what does it leave alone and why, and what is saved? "
        "A plan costs nothing; applying writes packed codes.", elem_classes="lead",
    )  # fmt: skip
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            recipe = gr.Dropdown(presets(), value=START, label="Recipe", allow_custom_value=True,
                                 info="PRESET or PRESET+field=value", elem_id="recipe")  # fmt: skip
            said = gr.Markdown(elem_id="recipe-said")
            with gr.Accordion("Settings of this recipe", open=False, elem_id="recipe-settings"):
                form = gr.Dataframe(
                    form_of(START), headers=HEADERS, interactive=True, static_columns=[0, 2, 3], wrap=True,
                    type="array", label="Edit a value: the recipe above follows", max_height=420,
                    column_widths=["25%", "21%", "21%", "33%"], elem_id="recipe-form",
                )  # fmt: skip
            # of two lines: in a box of one, Enter would not begin a new line
            include = gr.Textbox(label="Only these layers", info="wildcards, one per line", lines=2)
            exclude = gr.Textbox(label="Leave these alone", info="wildcards, one per line", lines=2,
                                 elem_id="leave-alone")  # fmt: skip
            override = gr.Textbox(
                label="Per layer", info="WILDCARD:field=value or WILDCARD:skip, one per line", lines=2,
                elem_id="per-layer",
            )  # fmt: skip
            native = gr.Checkbox(label="Native", info="refuse what the GPU's kernels cannot run here",
                                 elem_id="plan-native")  # fmt: skip
            with gr.Row():
                planned = gr.Button("Plan", variant="primary", elem_id="plan", min_width=100)
                applied = gr.Button("Apply", elem_id="apply", min_width=100)
            with gr.Row():
                stop = gr.Button("Cancel", variant="stop", elem_id="cancel-apply", min_width=100)
                undo = gr.Button("Undo", elem_id="undo", min_width=100)
            status = gr.Markdown(elem_id="apply-status")
        with gr.Column(scale=2, min_width=360):
            summary = gr.Markdown(WAIT, elem_id="plan-summary", elem_classes="numbers")
            table = gr.Dataframe(headers=PLAN_HEADERS, interactive=False, label="Every layer once", wrap=True,
                                 max_height=520, show_search="filter", elem_id="plan-table",
                                 elem_classes="ends",
                                 column_widths=["34%", "10%", "9%", "9%", "14%", "24%"])  # fmt: skip
            boxes, _ = copy_box("plan")
    card.build(recipe)
    current, history, planned_of = gr.State(""), gr.State([]), gr.State([])
    hidden = gr.Gallery(visible=False)
    controls = [model, recipe, include, exclude, override]

    def planning(
        model: str, recipe: str, include: str, exclude: str, override: str, native: bool = False
    ) -> Any:  # fmt: skip
        """Plan: every layer with its bits, bytes and path here, or the reason why it is left alone."""
        settings = plan_settings(model, recipe, include, exclude, override, native)
        found = plan.run(settings, Context())
        texts = copies("plan", "plan", settings)
        return (totals(found, f"Plan of {recipe} on {model}"), plan_rows(found), *texts)

    plan_model = answer(planning)

    def plan_or_why(*given: Any) -> list[Any]:
        """Plan, or say in the plan's place why there is none: no plan of other settings stands there."""
        of = list(given[:5])
        try:
            return [of, *planning(*given)]
        except Exception as fault:
            return [of, failed(fault), [], *[""] * len(boxes)]

    def plan_again(of: list[Any], *given: Any) -> list[Any]:
        return [gr.skip()] * (3 + len(boxes)) if of == list(given[:5]) else plan_or_why(*given)

    def apply_recipe(
        model: str, recipe: str, include: str, exclude: str, override: str, history: list[list[str]],
        request: gr.Request,
    ) -> Iterator[list[Any]]:  # fmt: skip
        """Quantize the model, write packed codes and the ledger, and keep the recipe as the current one."""
        base = checked(lambda: plan_settings(model, recipe, include, exclude, override))
        name = _stem(base)

        def prepare() -> Any:
            out = home / name
            settings = quantize.Settings(**base.model_dump(exclude={"native"}), out=out)
            steps = [*history, [model, recipe, include, exclude, override]]

            def show(found: quantize.Result) -> list[Any]:
                again = " (was there already)" if found.done_before else ""
                words = totals(found, f"Ledger of {recipe}{again}: {out}")
                return [words, plan_rows(found), recipe, steps, steps[-1]]

            return partial(registry.run, "quantize", settings), show

        for words, *found in stream(prepare, 5, "apply", request, stays=name):
            more = words == "Done." and any((include, exclude, override))
            yield [f"{words} {ALONE}" if more else words, *found]

    @answer
    def back(history: list[list[str]]) -> Any:
        """Undo the last Apply: the recipe before it, or full precision, is the current one again."""
        left, shown, words = undone(history)
        views = plan_or_why(*left[-1]) if left else [[], "", [], *[""] * len(boxes)]
        return [*shown, left, left[-1][1] if left else "", words, *(views if history else _same(views))]

    @answer
    def settings_of(recipe: str) -> Any:
        """Return the settings of a recipe: name, value, what is allowed, what it is."""
        return form_of(recipe)

    quick: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}
    shown = [planned_of, summary, table, *boxes]
    planning_is: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 4,
                                   "show_progress_on": summary}  # fmt: skip
    given = [*controls, native]
    gr.Button("Plan", visible=False).click(plan_model, given, shown[1:], api_name="plan", concurrency_limit=4)
    in_address(gr.on([planned.click, native.input], plan_or_why, given, shown, **planning_is), boxes[0])
    # what is shown is of what is chosen: a list, a box that is left, a page that is come to
    again = gr.on(
        [tab.select, model.input, recipe.input, include.blur, exclude.blur, override.blur], plan_again,
        [planned_of, *given], shown, trigger_mode="always_last", **planning_is,
    )  # fmt: skip
    in_address(again, boxes[0])
    applied.click(
        apply_recipe, [*controls, history], [status, hidden, summary, table, current, history, planned_of],
        api_name="apply", **quick,
    )  # fmt: skip
    stop.click(canceller("apply"), None, status, api_visibility="private", queue=False)
    undo.click(back, history, [*controls, history, current, status, *shown], api_name="undo")
    gr.Button("Settings", visible=False).click(settings_of, recipe, form, api_name="recipe_settings", **quick)
    recipe.change(chosen, recipe, [form, said], api_visibility="private", **quick)
    form.input(edited, [form, recipe], [recipe, said], api_visibility="private", **quick).success(
        plan_again, [planned_of, *given], shown, **planning_is
    )
    names = ("recipe", "include", "exclude", "override", "native")
    return {"fields": dict(zip(names, [*controls[1:], native], strict=True)), "current": current}


def _same(outputs: list[Any]) -> list[Any]:
    return [gr.skip()] * len(outputs)


def _stem(settings: plan.Settings) -> str:
    from lab.runs.folder import config_hash

    return f"{Path(settings.model).name}-{config_hash(settings.model_dump(mode='json'))}"
