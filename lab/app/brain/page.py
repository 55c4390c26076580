"""Brain: what somebody saw, decoded from their fMRI through the decoder at chosen bits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from lab.app.brain import bits, maps
from lab.app.brain.maps import subject_of, words_on
from lab.app.brain.pictures import GROUPS, by_rule, strips
from lab.app.copying import copies, copy_box, in_address
from lab.app.places import local, trained, within
from lab.app.plan.form import presets
from lab.app.work import answer, begin, canceller, reveal, stream
from lab.cache import cache_folder
from lab.errors import InputError
from lab.jobs import registry
from lab.jobs.brain import decode, reconstruct

NONE = "none"
HEADERS = ["trial", "stimulus", "two-way ridge", "two-way decoded", "PixCorr ridge", "PixCorr decoded",
           "SSIM ridge", "SSIM decoded"]  # fmt: skip
_WIDTHS: Any = ["8%", "20%", "12%", "12%", "12%", "12%", "12%", "12%"]
OWN = ("guidance", "strength", "steps")
_DEMO = {"guidance": 1.0, "strength": 0.2, "steps": 14}
EMPTY = (
    "### Nothing decoded yet\nPress **Decode**: each test picture is decoded from the voxels that it evoked, "
    "and stands beside what was seen and beside the ridge decoder, with its scores. It takes about half a "
    "minute on two CPU cores; a recipe adds the time to quantize the decoder."
)
NO_RUN = "No trained run is chosen: press Train and reconstruct under 'Train one', or run brainlab demo."
FIRST = (
    "### First a trained run\nPress **Train and reconstruct**: with the dataset *simulated* it "
    "makes a *simulated* subject, trains on it and decodes its test pictures, in minutes; it is listed under "
    "*Runs* meanwhile. Or run, in a terminal (four subjects, four minutes), and come back to this page:\n\n"
    "`brainlab demo --out {demo}`"
)


def datasets() -> list[str]:
    """Names of the datasets that can be chosen."""
    from brainit.datasets import list_datasets

    return list_datasets()


def own_settings(folder: Path) -> dict[str, Any]:
    """Return the settings that a run was decoded with, as far as the page has a control for them."""
    from lab.decoding.trained import TrainedRun

    config = TrainedRun.open(folder).config
    return {name: getattr(config, name) for name in OWN}


def completed(home: Path, settings: decode.Settings) -> decode.Settings:
    """Return a link's settings, with those of its run where it names none: never another run's."""
    own = own_settings(within(home, str(settings.folder)))
    return settings.model_copy(update={k: v for k, v in own.items() if getattr(settings, k) is None})


def build(home: Path, tab: Any) -> dict[str, Any]:
    """Lay the page out.

    Parameters
    ----------
    home : Path
        Folder of the runs.
    tab : gradio.Tab
        Where it lies; whoever comes to it finds a fresh list of runs.
    """
    gr.Markdown(
        "A person looked at a picture; this decodes it from their fMRI through a diffusion decoder, at the "
        "bits you choose, beside the ridge decoder. *Simulated subjects* are made by the "
        "program.",
        elem_classes="lead",
    )
    known = trained(home)
    start = _start(home, known)
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            folder = gr.Dropdown(known, value=known[0] if known else None, label="Trained run",
                                 allow_custom_value=True, info="of brainlab demo or brain reconstruct",
                                 elem_id="brain-run")  # fmt: skip
            with gr.Accordion("Train one", open=not known):
                dataset = gr.Dropdown(datasets(), value="simulated", label="Dataset")
                root = gr.Textbox(
                    label="Folder of the data",
                    info="read where it lies, laid out as brainlab data info NAME says; empty for simulated",
                )
                train = gr.Button("Train and reconstruct (minutes)", elem_id="train-run")
            trials = gr.Textbox("0,1,2,3", label="Test pictures", info="counted from 0, commas between",
                                elem_id="trial-numbers")  # fmt: skip
            rule = gr.Radio(list(GROUPS), label="Or by rule: four of the run's", elem_id="trial-rule",
                            info="ranked by the PixCorr that the run wrote down")  # fmt: skip
            recipe = gr.Dropdown([NONE, *presets()], value=NONE, label="Recipe (simulated unless Native)",
                                 allow_custom_value=True, elem_id="brain-recipe")  # fmt: skip
            with gr.Row():
                guidance = gr.Slider(0, 15, value=start["guidance"], step=0.25, label="Guidance")
                strength = gr.Slider(0, 1, value=start["strength"], step=0.05, label="Strength",
                                     elem_id="strength")  # fmt: skip
            with gr.Row():
                steps = gr.Slider(1, 100, value=start["steps"], step=1, label="Sampling steps",
                                  elem_id="brain-steps")  # fmt: skip
                seed = gr.Number(value=0, precision=0, label="Seed")
            mask = gr.Dropdown([("none", "")], value="", label="What if a region were silent?",
                               info="its voxels are set to their training mean", elem_id="mask")  # fmt: skip
            semantic = gr.Checkbox(
                False, label="Also from the tokens alone", info="the semantic picture, from noise: slower"
            )
            native = gr.Checkbox(label="Native", info="through the GPU's low-bit kernels; else simulated",
                                 elem_id="brain-native")  # fmt: skip
            with gr.Row():
                go = gr.Button("Decode", variant="primary", elem_id="decode")
                stop = gr.Button("Cancel", variant="stop", elem_id="cancel-decode")
            status = gr.Markdown(elem_id="decode-status")
        with gr.Column(scale=2, min_width=340):
            note = gr.Markdown(elem_id="leak-line", elem_classes="source")
            first = FIRST.format(demo=home.absolute() / "demo")
            empty = gr.Markdown(EMPTY if known else first, elem_classes="empty")
            live = gr.Gallery(label="On their way", columns=4, height="auto", object_fit="contain",
                              buttons=[], interactive=False, elem_classes="live",
                              allow_preview=False, visible=False, show_label=False)  # fmt: skip
            with gr.Column(visible=False) as results:
                gr.Markdown(
                    "**Stimulus, ridge, structural picture, decoded** (numbers: two-way, the share of "
                    "the other stimuli that a picture is less like than its own, by features;"
                    " PixCorr of small pictures)"
                )
                pictures = gr.Gallery(
                    show_label=False, columns=4, height="auto", format="png", object_fit="contain",
                    elem_id="decoded", buttons=["download_all"], interactive=False, label="Decoded pictures",
                )  # fmt: skip
                table = gr.Dataframe(
                    headers=HEADERS,
                    interactive=False,
                    label="Per trial, beside ridge",
                    wrap=True,
                    elem_id="trials",
                    column_widths=_WIDTHS,
                )
            with gr.Accordion("On the brain", open=False, elem_id="brain-slices") as fold:
                with gr.Row():
                    kind = gr.Dropdown(list(maps.KINDS), value=maps.CEILING, label="Show", elem_id="map-kind",
                                       scale=2)  # fmt: skip
                    trial = gr.Number(0, label="Test picture", precision=0, minimum=0, scale=1, min_width=100)
                threshold = gr.Slider(
                    0, 1, value=0.5, step=0.05, label="Hide the lowest of the voxels: their share",
                    elem_id="map-threshold",
                )  # fmt: skip
                brain = gr.Image(label="Slices", format="png", interactive=False, show_label=False,
                                 elem_id="map", buttons=["download", "fullscreen"])  # fmt: skip
                brain_note = gr.Markdown(elem_classes="source")
            controls = [folder, trials, recipe, guidance, strength, steps, mask, seed, semantic, native]
            bits.build(home, lambda *given: asked(*given), controls)
            boxes, copied = copy_box("brain")

    @answer
    def run_facts(folder: str, mask: str = "") -> Any:
        """Say whose voxels a run has, what its leak check found, and which regions can be silenced."""
        if not folder:
            return NO_RUN, gr.Dropdown(choices=[("none", "")], value="")
        subject, words = subject_of(str(within(home, folder)))
        regions = sorted(subject.roi)
        return words, gr.Dropdown(choices=[("none", ""), *regions], value=mask if mask in regions else "")

    @answer
    def chosen(folder: str) -> Any:
        """Start from a run: whose voxels it has, and the settings that it was decoded with."""
        own = own_settings(within(home, folder)) if folder else {}
        return *run_facts(folder), *(own.get(name, gr.skip()) for name in OWN)

    def asked(
        folder: str, trials: str, recipe: str, guidance: float, strength: float, steps: float, mask: str,
        seed: float, semantic: bool, native: bool,
    ) -> Any:  # fmt: skip
        if not folder:
            raise InputError(NO_RUN)
        given = {"folder": within(home, folder), "trials": trials, "recipe": recipe or NONE,
                 "guidance": guidance, "strength": strength, "steps": int(steps), "mask": mask or "",
                 "seed": int(seed), "semantic": bool(semantic), "native": bool(native)}  # fmt: skip
        return registry.settings("brain decode", given)

    def forms(bare: Any, folder: str) -> list[str]:
        _, *texts = copies("brain decode", "brain", bare, "folder")
        link, *_ = copies("brain decode", "brain", bare.model_copy(update={"folder": Path(folder)}), "folder")
        return [link, *texts]

    @answer
    def state(decoded: Any, *given: Any) -> list[Any]:
        """Fill the fold before anything was decoded; later it says how the shown pictures were made."""
        return [gr.skip()] * len(boxes) if decoded else forms(asked(*given), given[0])

    def decode_trials(
        folder: str, trials: str, recipe: str, guidance: float, strength: float, steps: float, mask: str,
        seed: float, semantic: bool, native: bool, request: gr.Request,
    ) -> Iterator[list[Any]]:  # fmt: skip
        """Decode test pictures of a trained run with these settings, simulated or native."""

        def prepare() -> Any:
            bare = asked(folder, trials, recipe, guidance, strength, steps, mask, seed, semantic, native)
            place = cache_folder("app", "decode", _session(request))
            settings = bare.model_copy(update={"out": place})

            def show(found: decode.Result) -> list[Any]:
                columns = list(found.rows[0])
                rows = {"headers": columns, "data": [[row[c] for c in columns] for row in found.rows]}
                words = words_on(found.simulated_subject, found.leak_line, found.arithmetic)
                gallery = gr.Gallery(strips(found), columns=len(found.shown))
                return [gallery, rows, words, *forms(bare, folder)]

            return partial(registry.run, "brain decode", settings), show

        yield from stream(prepare, 3 + len(boxes), "decode", request)

    def train_run(dataset: str, root: str, request: gr.Request) -> Iterator[list[Any]]:
        """Train Brain-IT on a dataset and reconstruct its test pictures; the run stays below the runs."""
        name = f"app-{dataset}"

        def prepare() -> Any:
            given = {"dataset": dataset, "out": home / name, **({"root": local(root)} if root else {})}
            settings = registry.settings("brain reconstruct", given)

            def show(found: reconstruct.Result) -> list[Any]:
                return [gr.Dropdown(choices=trained(home), value=name)]

            return partial(registry.run, "brain reconstruct", settings), show

        yield from stream(prepare, 1, "decode", request, stays=name)

    @answer
    def brain_map(folder: str, kind: str, trial: float, threshold: float) -> Any:
        """Draw a run's subject on brain slices: ceiling, response, clusters, attention; above a threshold."""
        if not folder:
            raise InputError(NO_RUN)
        return maps.slices(within(home, folder), kind, int(trial or 0), threshold)

    def map_or_why(*given: Any) -> Any:
        try:
            return brain_map(*given)
        except gr.Error as fault:  # the map before it would stand under another name
            return None, f"**Nothing to draw:** {fault.message}"

    def look_again(folder: str) -> Any:
        """List the runs again; the first one that there is, is chosen."""
        known = trained(home)
        listed = [gr.Dropdown(choices=known), gr.Markdown(EMPTY if known else first)]
        if folder or not known:
            return *listed, *[gr.skip()] * (2 + len(OWN))
        return gr.Dropdown(choices=known, value=known[0]), listed[1], *chosen(known[0])

    @answer
    def trials_by_rule(folder: str, rule: str) -> str:
        """Return the best, median, worst or random test pictures of a run, by its PixCorr."""
        if not folder:
            raise InputError(NO_RUN)
        return ",".join(map(str, by_rule(within(home, folder), rule)))

    facts = [note, mask]
    free: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    go.click(begin, None, [empty, live], **quiet)
    decoded = go.click(
        decode_trials, controls, [status, live, pictures, table, note, *boxes], api_name="decode", **free
    )
    for ended in (decoded.success, decoded.failure):
        ended(reveal, pictures, [results, empty, live], **quiet)
    train.click(train_run, [dataset, root], [status, live, folder], api_name="train", **free)
    in_address(decoded, boxes[0])
    copied.expand(state, [pictures, *controls], boxes, **quiet)
    stop.click(canceller("decode"), None, status, api_visibility="private", queue=False)
    own = [guidance, strength, steps]
    tab.select(look_again, folder, [folder, empty, *facts, *own], api_visibility="private", **free)
    gr.on([trials.input, folder.input], lambda: None, None, rule, **quiet)  # not that run's by that rule
    rule.input(trials_by_rule, [folder, rule], trials, api_name="trials_by_rule", **free)
    folder.input(chosen, folder, [*facts, *own], api_name="run_facts", **free)
    shown = ([folder, kind, trial, threshold], [brain, brain_note])
    threshold.release(brain_map, *shown, api_name="brain_map", trigger_mode="always_last")
    gr.on([kind.input, trial.submit, fold.expand], map_or_why, *shown, api_visibility="private",
          trigger_mode="always_last")  # fmt: skip
    names = ("folder", "trials", "recipe", "guidance", "strength", "steps", "mask", "seed", "semantic",
             "native")  # fmt: skip
    return {"fields": dict(zip(names, controls, strict=True)), "facts": (run_facts, [folder, mask], facts)}


def _start(home: Path, known: list[str]) -> dict[str, Any]:
    """Where the sliders stand before anybody chose a run: at the first one's own settings."""
    try:
        return own_settings(within(home, known[0])) if known else dict(_DEMO)
    except InputError:  # of another version, or half deleted
        return dict(_DEMO)


def _session(request: gr.Request) -> str:
    word = str(getattr(request, "session_hash", "") or "none")
    return "".join(c for c in word if c.isalnum())[:40] or "none"
