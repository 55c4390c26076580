"""The fold of Brain that decodes the same test pictures at several bit-widths, beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from lab.app.brain.maps import words_on
from lab.app.brain.pictures import large
from lab.app.copying import page_box
from lab.app.places import within
from lab.app.plan.form import presets
from lab.app.work import canceller, stream
from lab.cache import cache_folder
from lab.errors import InputError
from lab.jobs import registry
from lab.jobs.brain import decode

FULL, NONE, MOST = "full precision", "none", 4
START = ("rtn-w8a8", "svdquant-w4a4", "rtn-w3a4")
HEADERS = ["decoded by", "two-way", "PixCorr", "PSNR to full precision (dB)", "arithmetic"]
_WIDTHS: Any = ["30%", "14%", "14%", "22%", "20%"]
WHOLE = "Decode all test pictures: scores with intervals, as a page (minutes; under Runs)"
LOOK = (
    "{n} pictures from the same noise, to look at: too few to rank recipes by. {whose} Numbers below a "
    "picture and in the table: two-way, the share of the other stimuli that a picture is less like than its "
    "own, by features, chance .5 (PixCorr, where pictures are too small for the network)."
)


def asked(bare: Any, recipes: Sequence[str], place: Path) -> dict[str, Any]:
    """Return the settings of decoding in full precision and by each recipe, by name.

    Parameters
    ----------
    bare : lab.jobs.brain.decode.Settings
        Trials, guidance, noise and all else; its own recipe is left out.

    Raises
    ------
    InputError
        No recipe, one that is given twice, or too many.
    """
    wanted = [recipe for recipe in recipes if recipe != NONE]
    if not wanted:
        raise InputError("no recipe is chosen to set beside full precision; choose one or more")
    if len(wanted) > MOST or len(set(wanted)) < len(wanted):
        raise InputError(f"recipes {', '.join(wanted)[:80]}: choose 1 to {MOST}, each once")
    names = {FULL: NONE} | {recipe: recipe for recipe in wanted}
    return {
        name: bare.model_copy(update={"recipe": recipe, "semantic": False, "out": place / str(number)})
        for number, (name, recipe) in enumerate(names.items())
    }


def side_by_side(found: Mapping[str, decode.Result]) -> tuple[list[tuple[np.ndarray, str]], list[list[Any]]]:
    """Return pictures with captions, a row for each trial, and the table of what each recipe scores.

    Parameters
    ----------
    found : mapping of name to decode.Result
        The first is full precision.
    """
    from brainit.metrics import psnr
    from lab.files import read_npz

    held = {name: read_npz(Path(one.archive)) for name, one in found.items()}
    first = next(iter(found.values()))
    score = "two-way" if "two-way decoded" in first.rows[0] else "PixCorr"
    shown = []
    for place, row in enumerate(first.rows):
        columns = [
            ("stimulus", "stimulus", None),
            ("ridge", "ridge_to_pixels", row[f"{score} ridge"]),
        ]
        own = next(iter(held.values()))
        for name, array, value in columns:
            words = "" if value is None else f" {value:.2f}"
            shown.append((large(own[array][place]), f"{row['trial']}: {name}{words}"))
        for name, one in found.items():
            value = one.rows[place][f"{score} decoded"]
            shown.append((large(held[name]["decoded"][place]), f"{row['trial']}: {name} {value:.2f}"))
    full = held[FULL]["decoded"]
    rows = [["ridge", *_means(first, "ridge"), "-", "-"]]
    for name, one in found.items():
        near = "-" if name == FULL else f"{float(np.mean(psnr(held[name]['decoded'], full))):.1f}"
        rows.append([name, *_means(one, "decoded"), near, one.arithmetic])
    return shown, rows


def _means(found: decode.Result, of: str) -> list[str]:
    values = [[row.get(f"{score} {of}") for row in found.rows] for score in ("two-way", "PixCorr")]
    return ["-" if None in each else f"{float(np.mean(each)):.3f}" for each in values]  # type: ignore[arg-type]


def build(home: Path, settings_of: Callable[..., Any], controls: Sequence[Any]) -> None:
    """Lay the fold out.

    Parameters
    ----------
    home : Path
        Folder of the runs.
    settings_of : callable
        Turns the values of the page's controls into settings of decoding.
    controls : sequence of gradio component
        The page's, the run first.
    """
    with gr.Accordion("Fewer and fewer bits, side by side", open=False, elem_id="brain-bits"):
        gr.Markdown(
            "The test pictures, guidance, strength, steps, seed and region chosen on this page, in full "
            "precision and by each of these recipes, from the same noise."
        )
        recipes = gr.Dropdown(presets(), value=list(START), multiselect=True, max_choices=MOST,
                              label="Recipes (simulated unless Native)", allow_custom_value=True,
                              elem_id="bits-recipes")  # fmt: skip
        with gr.Row():
            go = gr.Button("Decode at each of them", elem_id="decode-bits", min_width=100)
            stop = gr.Button("Cancel", variant="stop", min_width=100)
        status = gr.Markdown(elem_id="bits-status")
        live = gr.Gallery(visible=False)
        pictures = gr.Gallery(
            show_label=False, height="auto", format="png", object_fit="contain", elem_id="bits-pictures",
            buttons=["download_all"], interactive=False, visible=False,
            label="Decoded at each bit-width",
        )  # fmt: skip
        note = gr.Markdown(elem_classes="source", elem_id="bits-note")
        table = gr.Dataframe(
            headers=HEADERS, interactive=False, wrap=True, visible=False, elem_id="bits-table",
            label="Means over these pictures", column_widths=_WIDTHS,
        )  # fmt: skip

        def at_bits(request: gr.Request, recipes: list[str], *given: Any) -> Iterator[list[Any]]:
            """Decode the same test pictures in full precision and by several recipes."""

            def prepare() -> Any:
                place = cache_folder("app", "bits", _name(request))
                wanted = asked(settings_of(*given), recipes, place)

                def show(found: dict[str, decode.Result]) -> list[Any]:
                    shown, rows = side_by_side(found)
                    last = list(found.values())[-1]
                    words = words_on(last.simulated_subject, last.leak_line, last.arithmetic)
                    n = len(last.rows)
                    return [gr.Gallery(shown, columns=len(shown) // n, visible=True),
                            LOOK.format(n=n, whose=words), gr.Dataframe(rows, visible=True)]  # fmt: skip

                return partial(registry.run_each, "brain decode", wanted), show

            yield from stream(prepare, 3, "bits", request)

        go.click(at_bits, [recipes, *controls], [status, live, pictures, note, table], api_name="decode_bits",
                 show_progress="hidden", concurrency_limit=None)  # fmt: skip
        stop.click(canceller("bits"), None, status, api_visibility="private", queue=False)
        page_box(
            "bits", home, WHOLE, "brain bits", partial(page_of, home), [recipes, controls[0], controls[-1]]
        )


def page_of(home: Path, recipes: list[str], folder: str, native: bool) -> tuple[dict[str, Any], str]:
    """Return the settings of a run's page about bits, and how its folder is called."""
    if not folder:
        raise InputError("no trained run is chosen")
    given = {"folder": within(home, folder), "recipes": tuple(recipes), "native": bool(native)}
    return given, f"bits-{Path(folder).name}"


def _name(request: Any) -> str:
    word = str(getattr(request, "session_hash", "") or "none")
    return "".join(c for c in word if c.isalnum())[:40] or "none"
