"""Compare: the same pictures in full precision and by recipes, side by side; which layers suffer most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from lab.app.compare import sensitivity
from lab.app.copying import copies, copy_box, in_address, page_box
from lab.app.places import local
from lab.app.plan.form import presets
from lab.app.work import answer, begin, canceller, reveal, stream
from lab.cache import cache_folder
from lab.jobs import registry
from lab.jobs.models import variants
from quant.recordings.shards import read_manifest

HEADERS = ["recipe", "PSNR to full (dB)", "SSIM to full", "ST-LPIPS to full", "weight bits", "model MB",
           "arithmetic", "seconds per picture"]  # fmt: skip
_WIDTHS: Any = ["16%", "14%", "14%", "16%", "8%", "8%", "12%", "12%"]
EMPTY = (
    "### No pictures yet\nPress **Draw**: the same noise becomes pictures in full precision and with each "
    "recipe. Then there will be a slider from one to the other, their difference, scores with intervals, and "
    "the error along the sampling steps. Four small pictures with two recipes take about a minute on two CPU "
    "cores."
)
START = ("rtn-w4a4", "svdquant-w4a4")
PAGE = "Measure with seed 0 and write a page: scores, figures, checks (minutes; under Runs)"
FACTORS = (20, 10, 5, 2)


def build_compare(model: Any, recording: Any, home: Path) -> dict[str, Any]:
    """Lay out Compare.

    Parameters
    ----------
    model, recording : gradio component
        Which say what draws.
    home : Path
        Folder of the runs.
    """
    gr.Markdown(
        "The same noise and conditions in full precision and with up to four recipes: what changes in the "
        "pictures, and how much?", elem_classes="lead",
    )  # fmt: skip
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            chosen = gr.Dropdown(presets(), value=list(START), multiselect=True,
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
        with gr.Column(scale=2, min_width=360):
            empty = gr.Markdown(EMPTY, elem_classes="empty")
            live = gr.Gallery(label="On their way", columns=4, height="auto", object_fit="contain",
                              show_label=False, visible=False, allow_preview=False, buttons=[],
                              interactive=False, elem_classes="live")  # fmt: skip
            with gr.Column(visible=False) as results:
                table = gr.Dataframe(
                    headers=HEADERS, interactive=False, wrap=True, elem_id="scores", column_widths=_WIDTHS,
                    label="Against full precision: means, 95 % intervals over pictures",
                )  # fmt: skip
                with gr.Row():
                    which = gr.Dropdown([], label="Recipe")
                    index = gr.Slider(1, 4, value=1, step=1, label="Picture")
                drawn_for = gr.Markdown(elem_id="drawn-for")
                with gr.Row():
                    slider = gr.ImageSlider(label=_sides("the recipe"), format="png",
                                            interactive=False, elem_id="pair")  # fmt: skip
                    difference = gr.Image(label="Difference", format="png", interactive=False,
                                          elem_id="difference",
                                          buttons=["download", "fullscreen"])  # fmt: skip
                along = gr.Plot(label="Error along the sampling steps", show_label=False)
            sensitivity.build(model)
            boxes, copied = copy_box("compare")
            controls = [model, chosen, n, steps, guidance, seed, native, recording]
            page_box("compare", home, PAGE, "compare", page_of, controls)
    archive, names = gr.State(""), gr.State([])

    def draw(
        model: str,
        recipes: list[str],
        n: float,
        steps: float,
        guidance: float,
        seed: float,
        native: bool,
        recording: str,
        request: gr.Request,
    ) -> Iterator[list[Any]]:
        """Draw the same pictures in full precision and with each recipe, simulated or native, and measure."""

        def prepare() -> Any:
            bare = _asked(model, recipes, n, steps, guidance, seed, native, recording)
            place = cache_folder("app") / f"variants-{_key(bare)}"
            settings = bare.model_copy(update={"out": place})

            def show(found: variants.Result) -> list[Any]:
                columns = list(found.rows[0])
                words = [[_word(row[c]) for c in columns] for row in found.shown()]
                rows = {"headers": columns, "data": words}
                drawn = [f"{row['recipe']} ({row['arithmetic']})" for row in found.rows[1:]]
                shown = copies("variants", "compare", bare)
                picture = gr.Slider(maximum=max(2, int(n)), value=1)
                return [rows, gr.Dropdown(choices=drawn, value=drawn[0]), picture,
                        *_pair(found.archive, drawn[0], 1, found.pictures_of), apart(found), found.archive,
                        found.pictures_of, *shown]  # fmt: skip

            variants.check(settings)
            return partial(registry.run, "variants", settings), show

        yield from stream(prepare, 9 + len(boxes), "draw", request)

    @answer
    def state(archive: str, *given: Any) -> Any:
        """Fill the fold before anything was drawn; later it says how the shown pictures were made."""
        return [gr.skip()] * len(boxes) if archive else copies("variants", "compare", _asked(*given))

    def look_at(archive: str, recipe: str, index: float, names: list[str]) -> Any:
        return _pair(archive, recipe, int(index), names) if archive and recipe else [gr.skip()] * 3

    pair = [drawn_for, slider, difference]
    outputs = [status, live, table, which, index, *pair, along, archive, names, *boxes]
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    go.click(begin, None, [empty, live], **quiet)
    drawn = go.click(draw, controls, outputs, api_name="draw", concurrency_limit=None, show_progress="hidden")
    for ended in (drawn.success, drawn.failure):
        ended(reveal, archive, [results, empty, live], **quiet)
    in_address(drawn, boxes[0])
    copied.expand(state, [archive, *controls], boxes, **quiet)
    stop.click(canceller("draw"), None, status, api_visibility="private", queue=False)
    for control in (which, index):
        control.input(look_at, [archive, which, index, names], pair, api_visibility="private",
                      show_progress="hidden")  # fmt: skip
    recording.change(sampled_as, recording, [steps, guidance], **quiet)
    fields = ("recipes", "n", "steps", "guidance", "seed", "native")
    return {"fields": dict(zip(fields, controls[1:-1], strict=True))}


def sampled_as(recording: str) -> list[Any]:
    """Return a recording's steps and guidance for the sliders (others are refused); none without one."""
    try:
        made = read_manifest(Path(local(recording)))["settings"] if recording else None
    except ValueError:  # an InputError of this package or of quant; drawing says why
        made = None
    if made is None:
        return [gr.skip(), gr.skip()]
    steps, guidance = made["n_steps"], made["guidance"]
    return [
        gr.Slider(value=steps, minimum=min(2, steps), maximum=max(50, steps)),
        gr.Slider(value=guidance, maximum=max(6, guidance)),
    ]


def _asked(
    model: str, recipes: list[str], n: float, steps: float, guidance: float, seed: float, native: bool,
    recording: str,
) -> Any:  # fmt: skip
    mine = {"recording": local(recording)} if recording else {}
    given = {"model": local(model), "recipes": tuple(recipes), "n": int(n), "steps": int(steps),
             "guidance": guidance, "seed": int(seed), "native": native, **mine}  # fmt: skip
    return registry.settings("variants", given)


def page_of(
    model: str, recipes: list[str], n: float, steps: float, guidance: float, seed: float, native: bool,
    recording: str,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """Return the settings of a comparison's page, and how its run is called; its seed is 0."""
    bare = _asked(model, recipes, n, steps, guidance, seed, native, recording)
    given = bare.model_dump(include={"model", "recording", "recipes", "n", "steps", "guidance", "native"})
    return {**given, "seeds": 1}, f"compare-{Path(model).name}"


def joined(recipe: str, chosen: list[str]) -> list[str]:
    """Return the recipes to compare with one more that was applied; the oldest gives way."""
    if not recipe or recipe in chosen:
        return chosen
    return [*chosen, recipe][-variants.MOST :]


def apart(found: variants.Result) -> Any:
    """Draw each recipe's distance from full precision along the sampling steps."""
    from lab.figures.interactive.views import error_lines

    how = " and ".join(dict.fromkeys(row["arithmetic"] for row in found.rows[1:]))
    return error_lines(
        found.timesteps, found.along,
        f"Distance of the latents from full precision along the sampling steps ({how})",
    )  # fmt: skip


def enlarged(pictures: Mapping[str, np.ndarray]) -> int:
    """Return by how much differences are multiplied: the same for all recipes and pictures of a drawing.

    The largest of `FACTORS` at which no more than 1 of 100 values of any recipe would be too bright to draw.
    """
    full = pictures[variants.plain_name(variants.FULL)]
    worst = max(float(np.quantile(np.abs(other - full), 0.99)) for other in pictures.values())
    return next((factor for factor in FACTORS if factor * worst <= 1), 1)


def _pair(archive: str, recipe: str, index: int, names: list[str]) -> tuple[str, Any, Any]:
    """Return what a picture was drawn for, a slider from full precision to a recipe, and their difference."""
    from lab.files import read_npz

    pictures = read_npz(Path(archive))
    factor = enlarged(pictures)
    quantized = recipe.rpartition(" (")[0]  # as it is chosen: with its arithmetic
    drawn = [pictures[variants.plain_name(name)] for name in (variants.FULL, quantized)]
    number = max(1, min(index, len(drawn[0]))) - 1
    full, other = (found[number] for found in drawn)
    pair = gr.ImageSlider((_large(full), _large(other)), label=_sides(recipe))
    label = f"Difference, times {factor} (black: none)"
    difference = gr.Image(_large(np.clip(factor * np.abs(full - other), 0, 1)), label=label)
    return f"Picture {number + 1}: {names[number]}", pair, difference


def _sides(recipe: str) -> str:
    return f"Left: full precision. Right: {recipe}"


def _large(picture: np.ndarray) -> np.ndarray:
    """Small pictures at about 512 pixels, edges kept: uint8 (H, W, 3)."""
    times = max(1, 512 // picture.shape[0])
    return np.kron((picture * 255).round().astype(np.uint8), np.ones((times, times, 1), np.uint8))


def _word(value: Any) -> Any:
    return "-" if value is None else value


def _key(settings: Any) -> str:
    from lab.runs.folder import config_hash

    return config_hash(settings.model_dump(mode="json", exclude={"out"}))
