"""Plan and apply, compare: what a recipe would do to every layer, doing it, and the pictures side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from lab.app.copying import copies, copy_box
from lab.app.work import answer, canceller, stream
from lab.cache import cache_folder
from lab.jobs import registry
from lab.jobs.contract import Context
from lab.jobs.models import plan, quantize, variants

PLAN_HEADERS = ["layer", "bits", "kB before", "kB after", "runs here", "why it is left alone"]
START = "svdquant-w4a4"


def presets() -> list[tuple[str, str]]:
    """Titles and names of all presets, for a list to choose from."""
    import quant

    return [(f"{name}: {quant.get_preset(name).title}", name) for name in quant.list_presets()]


def plan_settings(
    model: str, recipe: str, include: str, exclude: str, override: str, native: bool = False
) -> plan.Settings:
    """Check what the controls say; wildcards stand one per line."""
    return plan.Settings(
        model=model, recipe=recipe, include=_lines(include), exclude=_lines(exclude),
        override=_lines(override), native=native,
    )  # fmt: skip


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in (text or "").splitlines() if line.strip())


def plan_rows(result: plan.Result) -> list[list[Any]]:
    """Rows of the plan's table."""
    return [
        [row["layer"], row["bits"] or "-", round(row["bytes before"] / 1e3, 1),
         round(row["bytes after"] / 1e3, 1), row["here"], row["note"]]
        for row in result.layers
    ]  # fmt: skip


def totals(result: plan.Result, what: str) -> str:
    """Totals as a small table, with the word *simulated* beside the bits."""
    rows = [row for table in [plan.totals_table(result.totals)] for row in table.rows]
    first, *rest = [f"| {row['name']} | {row['value']} |\n" for row in rows]
    return f"**{what}**\n\n{first}|---|---|\n" + "".join(rest)


def build_plan(models: list[str], home: Path) -> dict[str, Any]:
    """Lay out Plan and apply."""
    gr.Markdown(
        "What would a recipe do to every layer, what does it leave alone and why, and what is saved? "
        "A plan costs nothing; applying writes packed codes.", elem_classes="lead",
    )  # fmt: skip
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            model = gr.Dropdown(models, value=models[0], label="Model", allow_custom_value=True,
                                info="Shipped, or the path of a local diffusers folder")  # fmt: skip
            recipe = gr.Dropdown(presets(), value=START, label="Recipe", allow_custom_value=True,
                                 info="PRESET or PRESET+field=value", elem_id="recipe")  # fmt: skip
            include = gr.Textbox(label="Only these layers", info="wildcards, one per line", lines=1)
            exclude = gr.Textbox(label="Leave these alone", info="wildcards, one per line", lines=1)
            override = gr.Textbox(
                label="Per layer", info="WILDCARD:field=value or WILDCARD:skip, one per line", lines=1
            )
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
            summary = gr.Markdown(elem_id="plan-summary", elem_classes="numbers")
            table = gr.Dataframe(headers=PLAN_HEADERS, interactive=False, label="Every layer once", wrap=True,
                                 max_height=520, show_search="filter", elem_id="plan-table",
                                 column_widths=["30%", "9%", "9%", "9%", "20%", "23%"])  # fmt: skip
            boxes = copy_box("plan")
    current = gr.State("")
    hidden = gr.Gallery(visible=False)
    controls = [model, recipe, include, exclude, override]

    @answer
    def plan_model(
        model: str, recipe: str, include: str, exclude: str, override: str, native: bool = False
    ) -> Any:
        """Plan: every layer with its bits, bytes and path here, or the reason why it is left alone."""
        settings = plan_settings(model, recipe, include, exclude, override, native)
        found = plan.run(settings, Context())
        texts = copies("plan", "plan", settings)
        return (totals(found, f"Plan of {recipe}"), plan_rows(found), *texts)

    def apply_recipe(
        model: str, recipe: str, include: str, exclude: str, override: str, request: gr.Request
    ) -> Iterator[list[Any]]:
        """Quantize the model, write packed codes and the ledger, and keep the recipe as the current one."""

        def prepare() -> Any:
            base = plan_settings(model, recipe, include, exclude, override)
            out = home / _stem(base)
            settings = quantize.Settings(**base.model_dump(exclude={"native"}), out=out)

            def show(found: quantize.Result) -> list[Any]:
                again = " (was there already)" if found.done_before else ""
                return [totals(found, f"Ledger of {recipe}{again}: {out}"), plan_rows(found), recipe]

            return lambda context: registry.run("quantize", settings, context), show

        yield from stream(prepare, 3, "apply", request, stays=True)

    def back() -> tuple[str, str]:
        return "", "Full precision again: Compare and Brain use no recipe."

    planned.click(
        plan_model, [*controls, native], [summary, table, *boxes], api_name="plan", concurrency_limit=4
    )
    applied.click(
        apply_recipe, controls, [status, hidden, summary, table, current], api_name="apply",
        concurrency_limit=None, show_progress="hidden",
    )  # fmt: skip
    stop.click(canceller("apply"), None, status, api_visibility="private", queue=False)
    undo.click(back, None, [current, status], api_visibility="private")
    names = ("model", "recipe", "include", "exclude", "override")
    return {"fields": dict(zip(names, controls, strict=True)), "current": current}


def _stem(settings: plan.Settings) -> str:
    from lab.runs.folder import config_hash

    return f"{Path(settings.model).name}-{config_hash(settings.model_dump(mode='json'))}"


def build_compare(models: list[str]) -> dict[str, Any]:
    """Lay out Compare."""
    gr.Markdown(
        "The same noise and conditions in full precision and with up to four recipes: what changes in the "
        "pictures, and how much?", elem_classes="lead",
    )  # fmt: skip
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            model = gr.Dropdown(models, value=models[0], label="Model")
            chosen = gr.Dropdown(presets(), value=["rtn-w4a4", START], multiselect=True,
                                 label="Recipes",
                                 max_choices=4, allow_custom_value=True, elem_id="recipes")  # fmt: skip
            with gr.Row():
                n = gr.Slider(1, 16, value=4, step=1, label="Pictures")
                steps = gr.Slider(2, 50, value=10, step=1, label="Sampling steps")
            with gr.Row():
                guidance = gr.Slider(0, 6, value=2, step=0.5, label="Guidance")
                seed = gr.Number(value=0, precision=0, label="Seed")
            native = gr.Checkbox(label="Native", info="through the GPU's low-bit kernels; else simulated",
                                 elem_id="draw-native")  # fmt: skip
            with gr.Row():
                go = gr.Button("Draw", variant="primary", elem_id="draw", min_width=100)
                stop = gr.Button("Cancel", variant="stop", elem_id="cancel-draw", min_width=100)
            status = gr.Markdown(elem_id="draw-status")
            live = gr.Gallery(label="On their way", columns=4, height=190, object_fit="contain")
        with gr.Column(scale=2, min_width=360):
            table = gr.Dataframe(
                interactive=False, label="Against full precision", wrap=True, elem_id="scores"
            )
            with gr.Row():
                which = gr.Dropdown([], label="Recipe")
                index = gr.Slider(1, 4, value=1, step=1, label="Picture")
            slider = gr.ImageSlider(label="Left: full precision. Right: the recipe", height=380,
                                    interactive=False)  # fmt: skip
            difference = gr.Image(label="Difference, times ten", height=240, interactive=False)
            boxes = copy_box("compare")
    archive = gr.State("")
    controls = [model, chosen, n, steps, guidance, seed, native]

    def draw(
        model: str,
        recipes: list[str],
        n: float,
        steps: float,
        guidance: float,
        seed: float,
        native: bool,
        request: gr.Request,
    ) -> Iterator[list[Any]]:
        """Draw the same pictures in full precision and with each recipe, simulated or native, and measure."""

        def prepare() -> Any:
            given = {"model": model, "recipes": tuple(recipes), "n": int(n), "steps": int(steps),
                     "guidance": guidance, "seed": int(seed), "native": native}  # fmt: skip
            bare: Any = registry.settings("variants", given)
            place = cache_folder("app") / f"variants-{_key(bare)}"
            settings = bare.model_copy(update={"out": place})

            def show(found: variants.Result) -> list[Any]:
                columns = list(dict.fromkeys(k for row in found.rows for k in row))
                rows = {
                    "headers": columns,
                    "data": [[_word(row.get(c)) for c in columns] for row in found.rows],
                }
                names = [row["recipe"] for row in found.rows[1:]]
                shown = copies("variants", "compare", bare)
                picture = gr.Slider(maximum=max(2, int(n)), value=1)
                return [rows, gr.Dropdown(choices=names, value=names[0]), picture,
                        *_pair(found.archive, names[0], 1), found.archive, *shown]  # fmt: skip

            variants.check(settings)
            return lambda context: registry.run("variants", settings, context), show

        yield from stream(prepare, 6 + len(boxes), "draw", request)

    def look_at(archive: str, recipe: str, index: float) -> Any:
        return _pair(archive, recipe, int(index)) if archive and recipe else (gr.skip(), gr.skip())

    outputs = [status, live, table, which, index, slider, difference, archive, *boxes]
    go.click(draw, controls, outputs, api_name="draw", concurrency_limit=None, show_progress="hidden")
    stop.click(canceller("draw"), None, status, api_visibility="private", queue=False)
    for control in (which, index):
        control.input(look_at, [archive, which, index], [slider, difference], api_visibility="private",
                      show_progress="hidden")  # fmt: skip
    names = ("model", "recipes", "n", "steps", "guidance", "seed", "native")
    return {"fields": dict(zip(names, controls, strict=True))}


def _pair(archive: str, recipe: str, index: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return a picture in full precision and by a recipe, and ten times their difference."""
    from lab.files import read_npz

    pictures = read_npz(Path(archive))
    drawn = [pictures[variants.plain_name(name)] for name in (variants.FULL, recipe)]
    full, other = (found[min(index, len(found)) - 1] for found in drawn)
    return (_large(full), _large(other)), _large(np.clip(10 * np.abs(full - other), 0, 1))


def _large(picture: np.ndarray) -> np.ndarray:
    """Pixels of 64 x 64 pictures eight times as large, edges kept: uint8 (512, 512, 3)."""
    return np.kron((picture * 255).round().astype(np.uint8), np.ones((8, 8, 1), np.uint8))


def _word(value: Any) -> Any:
    return "-" if value is None else value


def _key(settings: Any) -> str:
    from lab.runs.folder import config_hash

    return config_hash(settings.model_dump(mode="json", exclude={"out"}))
