"""Brain: what somebody saw, decoded from their fMRI through the decoder at chosen bits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from lab.app.copying import copies, copy_box
from lab.app.models_page import presets
from lab.app.places import trained, within
from lab.app.work import answer, canceller, stream
from lab.cache import cache_folder
from lab.errors import InputError
from lab.jobs import registry
from lab.jobs.brain import decode, reconstruct
from lab.jobs.contract import Context

SIZE = 192
NONE = "none"
NO_RUN = "no trained run is chosen; open 'Train one', or run: brainlab demo"


def datasets() -> list[str]:
    """Names of the datasets that can be chosen."""
    from brainit.datasets import list_datasets

    return list_datasets()


@lru_cache(maxsize=4)
def subject_of(folder: str) -> tuple[Any, str]:
    """Return a run's subject and what must be said wherever its scores stand."""
    from lab.decoding.data import open_subjects
    from lab.decoding.trained import TrainedRun

    run = TrainedRun.open(Path(folder))
    data = open_subjects(run.config, Context().progress)
    return data.subject, words_on(bool(data.about["simulated"]), data.about["leak_line"])


def words_on(simulated: bool, leak_line: str) -> str:
    """Say whose voxels these are and what the leak check found."""
    who = "**Simulated subject**: its voxels are made by the program." if simulated else "Measured subject."
    return f"{who} {leak_line[:1].upper()}{leak_line[1:]}. Bit-widths are simulated."


def strips(archive: str, rows: list[dict[str, Any]]) -> list[tuple[np.ndarray, str]]:
    """One picture per trial and row of the sheet, with what it is and its score."""
    from lab.files import read_npz

    held = read_npz(Path(archive))
    scored = {"ridge to pixels": "PixCorr ridge", "decoded": "PixCorr decoded"}
    short = {"ridge to pixels": "ridge"}
    shown = []
    for place, row in enumerate(rows):
        for name in decode.ROWS:
            picture = decode.coloured(held[name.replace(" ", "_")][place : place + 1])[0]
            words = f"{row['trial']}: {short.get(name, name)}"
            words += f" {row[scored[name]]:.2f}" if name in scored else ""
            shown.append((_large(picture), words))
    return shown


def _large(picture: np.ndarray) -> np.ndarray:
    times = max(1, SIZE // picture.shape[0])
    return np.kron(
        (picture * 255).round().clip(0, 255).astype(np.uint8), np.ones((times, times, 1), np.uint8)
    )


def voxel_values(subject: Any) -> tuple[str, np.ndarray]:
    """Return a value for each voxel to look at, and its name: the noise ceiling if it is known."""
    if subject.noise_ceiling is not None:
        return "noise ceiling", subject.noise_ceiling
    return "spread over training trials", subject.part("train").betas.std(0)


def slices(folder: Path, threshold: float) -> tuple[np.ndarray, str]:
    """Draw a subject's noise ceiling (or voxel spread) on slices, voxels above a share of the largest."""
    from PIL import Image

    from lab.figures.brain.slices import brain_slices
    from lab.figures.plate import Provenance

    subject, _ = subject_of(str(folder))
    if not subject.has_places:
        raise InputError(
            f"subject {subject.name} of {subject.dataset} has no voxel positions: nothing to map"
        )
    what, values = voxel_values(subject)
    keep = values >= threshold * values.max()
    source = Provenance(
        f"{subject.dataset}, {subject.name}",
        f"{keep.sum()} of {len(values)} voxels",
        simulated=subject.simulated,
    )
    space = str(subject.info.get("space") or ("MNI" if subject.simulated else ""))
    plate = brain_slices(subject.xyz[keep], values[keep], what, source, space)
    return np.asarray(Image.open(io.BytesIO(plate.png())).convert("RGB")), plate.caption


def build(home: Path) -> dict[str, Any]:
    """Lay the page out."""
    gr.Markdown(
        "A person looked at a picture; this decodes it from their fMRI through a diffusion decoder, at the "
        "bits you choose, beside the ridge decoder. *Simulated subjects* are made by the "
        "program.",
        elem_classes="lead",
    )
    known = trained(home)
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            folder = gr.Dropdown(known, value=known[0] if known else None, label="Trained run",
                                 allow_custom_value=True, info="of brainlab demo or brain reconstruct",
                                 elem_id="brain-run")  # fmt: skip
            again = gr.Button("Look for runs again", size="sm")
            with gr.Accordion("Train one", open=not known):
                dataset = gr.Dropdown(datasets(), value="simulated", label="Dataset")
                root = gr.Textbox(label="Folder of the data", info="read where it lies; empty for simulated")
                train = gr.Button("Train and reconstruct (minutes)", elem_id="train-run")
            trials = gr.Textbox("0,1,2,3", label="Test pictures", info="counted from 0, commas between")
            recipe = gr.Dropdown([NONE, *presets()], value=NONE, label="Recipe (simulated)",
                                 allow_custom_value=True, elem_id="brain-recipe")  # fmt: skip
            with gr.Row():
                guidance = gr.Slider(0, 8, value=1, step=0.25, label="Guidance")
                strength = gr.Slider(0, 1, value=0.2, step=0.05, label="Strength")
            with gr.Row():
                steps = gr.Slider(2, 50, value=14, step=1, label="Sampling steps")
                seed = gr.Number(value=0, precision=0, label="Seed")
            mask = gr.Dropdown([("none", "")], value="", label="What if a region were silent?",
                               info="its voxels are set to their training mean", elem_id="mask")  # fmt: skip
            with gr.Row():
                go = gr.Button("Decode", variant="primary", elem_id="decode")
                stop = gr.Button("Cancel", variant="stop", elem_id="cancel-decode")
            status = gr.Markdown(elem_id="decode-status")
        with gr.Column(scale=2, min_width=340):
            note = gr.Markdown(elem_id="leak-line", elem_classes="source")
            live = gr.Gallery(label="On their way", columns=4, height=230, object_fit="contain")
            pictures = gr.Gallery(
                label="Stimulus, ridge, structural picture, decoded (numbers: PixCorr)", columns=4,
                height=880, object_fit="contain", elem_id="decoded",
            )  # fmt: skip
            table = gr.Dataframe(interactive=False, label="Per trial, beside ridge", wrap=True)
            with gr.Accordion("Brain slices", open=False, elem_id="brain-slices"):
                threshold = gr.Slider(
                    0, 1, value=0.3, step=0.05, label="Hide voxels below this share of the largest"
                )
                brain = gr.Image(label="Slices", interactive=False, show_label=False)
                brain_note = gr.Markdown(elem_classes="source")
            boxes = copy_box("brain")
    controls = [folder, trials, recipe, guidance, strength, steps, mask, seed]

    @answer
    def run_facts(folder: str) -> Any:
        """Say whose voxels a run has, what its leak check found, and which regions can be silenced."""
        if not folder:
            return NO_RUN, gr.Dropdown(choices=[("none", "")], value="")
        subject, words = subject_of(str(within(home, folder)))
        return words, gr.Dropdown(choices=[("none", ""), *sorted(subject.roi)], value="")

    def decode_trials(
        folder: str, trials: str, recipe: str, guidance: float, strength: float, steps: float, mask: str,
        seed: float, request: gr.Request,
    ) -> Iterator[list[Any]]:  # fmt: skip
        """Decode test pictures of a trained run with these settings (bit-widths simulated)."""

        def prepare() -> Any:
            if not folder:
                raise InputError(NO_RUN)
            given = {"folder": within(home, folder), "trials": trials, "recipe": recipe or NONE,
                     "guidance": guidance, "strength": strength, "steps": int(steps), "mask": mask or "",
                     "seed": int(seed)}  # fmt: skip
            bare = registry.settings("brain decode", given)
            place = cache_folder("app", "decode", _session(request))
            settings = bare.model_copy(update={"out": place})

            def show(found: decode.Result) -> list[Any]:
                columns = list(found.rows[0])
                rows = {"headers": columns, "data": [[row[c] for c in columns] for row in found.rows]}
                shown = bare.model_copy(update={"folder": Path(folder)})
                _, *texts = copies("brain decode", "brain", bare, "folder")
                link, *_ = copies("brain decode", "brain", shown, "folder")
                words = words_on(found.simulated_subject, found.leak_line)
                return [strips(found.archive, found.rows), rows, words, link, *texts]

            return lambda context: registry.run("brain decode", settings, context), show

        yield from stream(prepare, 3 + len(boxes), "decode", request)

    def train_run(dataset: str, root: str, request: gr.Request) -> Iterator[list[Any]]:
        """Train Brain-IT on a dataset and reconstruct its test pictures; the run stays below the runs."""

        def prepare() -> Any:
            name = f"app-{dataset}"
            given = {"dataset": dataset, "out": home / name, **({"root": root} if root else {})}
            settings = registry.settings("brain reconstruct", given)

            def show(found: reconstruct.Result) -> list[Any]:
                return [gr.Dropdown(choices=trained(home), value=name)]

            return lambda context: registry.run("brain reconstruct", settings, context), show

        yield from stream(prepare, 1, "decode", request, stays=True)

    @answer
    def brain_map(folder: str, threshold: float) -> Any:
        """Draw a run's subject on brain slices, voxels above a threshold."""
        if not folder:
            raise InputError(NO_RUN)
        return slices(within(home, folder), threshold)

    def look_again() -> Any:
        return gr.Dropdown(choices=trained(home))

    facts = [note, mask]
    free: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}
    go.click(
        decode_trials, controls, [status, live, pictures, table, note, *boxes], api_name="decode", **free
    )
    train.click(train_run, [dataset, root], [status, live, folder], api_name="train", **free)
    stop.click(canceller("decode"), None, status, api_visibility="private", queue=False)
    again.click(look_again, None, folder, api_visibility="private")
    folder.change(run_facts, folder, facts, api_name="run_facts", **free)
    threshold.release(brain_map, [folder, threshold], [brain, brain_note], api_name="brain_map")
    names = ("folder", "trials", "recipe", "guidance", "strength", "steps", "mask", "seed")
    return {"fields": dict(zip(names, controls, strict=True)), "facts": (run_facts, folder, facts)}


def _session(request: gr.Request) -> str:
    word = str(getattr(request, "session_hash", "") or "none")
    return "".join(c for c in word if c.isalnum())[:40] or "none"
