"""Brain: what somebody saw, decoded from their fMRI through the decoder at chosen bits; and what if?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from lab.app.models_page import copies, copy_box, presets
from lab.app.work import answer, stream
from lab.cache import cache_folder
from lab.errors import InputError
from lab.jobs.brain import decode, reconstruct
from lab.jobs.contract import Context

SIZE = 132


def datasets() -> list[str]:
    """Names of the datasets that can be chosen."""
    from brainit.datasets.cards import CARDS

    return list(CARDS)


def trained_runs(home: Path) -> list[str]:
    """Run folders below a place that were trained."""
    found = [*home.glob("*/checkpoints/brainit/decoder.safetensors"),
             *home.glob("*/*/checkpoints/brainit/decoder.safetensors")]  # fmt: skip
    return sorted(str(file.parents[2]) for file in found)


def strips(archive: str, rows: list[dict[str, Any]]) -> list[tuple[np.ndarray, str]]:
    """One picture per trial and row of the sheet, with what it is and its score."""
    from lab.files import read_npz

    held = read_npz(Path(archive))
    shown = []
    for place, row in enumerate(rows):
        for name in decode.ROWS:
            picture = decode.coloured(held[name.replace(" ", "_")][place : place + 1])[0]
            score = {"ridge to pixels": "ridge", "decoded": "decoded"}.get(name)
            words = f"{name}, PixCorr {row[f'PixCorr {score}']:.2f}" if score else name
            shown.append((_large(picture), f"{row['trial']}: {words}"))
    return shown


def _large(picture: np.ndarray) -> np.ndarray:
    times = max(1, SIZE // picture.shape[0])
    return np.kron((picture * 255).round().clip(0, 255).astype(np.uint8), np.ones((times, times, 1), np.uint8))


def slices(folder: str, threshold: float) -> np.ndarray:
    """Draw a subject's noise ceiling (or voxel spread) on slices, voxels above a share of the largest."""
    import io

    from PIL import Image

    from lab.decoding.data import open_subjects
    from lab.decoding.trained import TrainedRun
    from lab.figures.brain.slices import brain_slices
    from lab.figures.plate import Provenance

    trained = TrainedRun.open(Path(folder))
    subject = open_subjects(trained.config, Context().progress).subject
    if subject.mask is None:
        raise InputError(f"subject {subject.name} of {subject.dataset} has no voxel positions; nothing to map")
    train = subject.part("train").betas
    values = subject.noise_ceiling if subject.noise_ceiling is not None else train.std(0)
    what = "noise ceiling" if subject.noise_ceiling is not None else "spread over training trials"
    shown = np.where(values >= threshold * values.max(), values, 0).astype(np.float32)
    source = Provenance(f"{subject.dataset}, {subject.name}", f"{len(values)} voxels", simulated=subject.simulated)
    plate = brain_slices(subject.to_image(shown), subject.mask, what, source)
    return np.asarray(Image.open(io.BytesIO(plate.png())).convert("RGB"))


def build() -> dict[str, Any]:
    """Lay the page out."""
    gr.Markdown(
        "A person looked at a picture; this decodes it from their fMRI through a diffusion decoder, at the bits "
        "you choose. Every picture stands beside the ridge decoder. *Simulated subjects* are made by the program.",
        elem_classes="lead",
    )
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            folder = gr.Dropdown(trained_runs(Path("runs")), label="Trained run", allow_custom_value=True,
                                 info="a folder of brain reconstruct or demo", elem_id="brain-run")  # fmt: skip
            again = gr.Button("Look for runs again", size="sm")
            with gr.Accordion("Train one", open=False):
                dataset = gr.Dropdown(datasets(), value="simulated", label="Dataset")
                root = gr.Textbox(label="Folder of the data", info="read where it lies; empty for simulated")
                train = gr.Button("Train and reconstruct", elem_id="train-run")
            trials = gr.Textbox("0,1,2,3", label="Test pictures", info="counted from 0, commas between")
            recipe = gr.Dropdown(["none", *presets()], value="none", label="Recipe (simulated)",
                                 allow_custom_value=True, elem_id="brain-recipe")  # fmt: skip
            with gr.Row():
                guidance = gr.Slider(0, 8, value=3, step=0.25, label="Guidance")
                strength = gr.Slider(0, 1, value=0.7, step=0.05, label="Strength")
            with gr.Row():
                steps = gr.Slider(2, 50, value=14, step=1, label="Sampling steps")
                seed = gr.Number(value=0, precision=0, label="Seed")
            mask = gr.Textbox(label="Silence a region", info="name of a region of interest; empty: none")
            go = gr.Button("Decode", variant="primary", elem_id="decode")
            stop = gr.Button("Cancel", variant="stop", elem_id="cancel-decode")
            status = gr.Markdown(elem_id="decode-status")
        with gr.Column(scale=2, min_width=360):
            live = gr.Gallery(label="On their way", columns=8, height=150, object_fit="contain")
            pictures = gr.Gallery(label="Stimulus, ridge, structural picture, decoded", columns=4, height=620,
                                  object_fit="contain", elem_id="decoded")  # fmt: skip
            table = gr.Dataframe(interactive=False, label="Per trial, beside ridge", wrap=True)
            note = gr.Markdown(elem_id="leak-line")
            with gr.Accordion("Brain slices", open=False):
                threshold = gr.Slider(0, 1, value=0.3, step=0.05, label="Hide voxels below this share of the largest")
                brain = gr.Image(label="Slices", interactive=False)
            boxes = copy_box()
    controls = [folder, trials, recipe, guidance, strength, steps, mask, seed]
    outputs = [status, live, pictures, table, note, *boxes]

    def decode_trials(
        folder: str, trials: str, recipe: str, guidance: float, strength: float, steps: float, mask: str,
        seed: float,
    ) -> Iterator[list[Any]]:  # fmt: skip
        """Decode test pictures of a trained run with these settings (bit-widths simulated)."""

        def prepare() -> Any:
            if not folder:
                raise InputError("no trained run is chosen; open 'Train one', or run: make demo")
            given = {"folder": Path(folder), "trials": trials, "recipe": recipe or "none", "guidance": guidance,
                     "strength": strength, "steps": int(steps), "mask": mask, "seed": int(seed)}  # fmt: skip
            bare = decode.Settings(**given)
            settings = decode.Settings(**given, out=cache_folder("app", "decode"))

            def show(found: decode.Result) -> list[Any]:
                columns = list(found.rows[0])
                rows = {"headers": columns, "data": [[row[c] for c in columns] for row in found.rows]}
                who = "*Simulated subject.*" if found.simulated_subject else "Measured subject."
                regions = f" Regions: {', '.join(found.regions)}." if found.regions else ""
                texts = copies("lab.jobs.brain.decode", "brain decode", "brain", bare, "folder")
                return [strips(found.archive, found.rows), rows, f"{who} {found.leak_line}.{regions}", *texts]

            return lambda context: decode.run(settings, context), show

        yield from stream(prepare, 3 + len(boxes))

    def train_run(dataset: str, root: str) -> Iterator[list[Any]]:
        """Train Brain-IT on a dataset and reconstruct its test pictures."""

        def prepare() -> Any:
            out = Path("runs") / f"app-{dataset}"
            given = {"dataset": dataset, "out": out, **({"root": root} if root else {})}
            settings = reconstruct.Settings(**given)
            return (lambda context: reconstruct.run(settings, context)), lambda found: [
                gr.Dropdown(choices=trained_runs(Path("runs")), value=str(out))
            ]

        yield from stream(prepare, 1)

    @answer([brain])
    def brain_map(folder: str, threshold: float) -> Any:
        """Draw a run's subject on brain slices, voxels above a threshold."""
        return slices(folder, threshold)

    running = go.click(decode_trials, controls, outputs, api_name="decode", concurrency_id="device",
                       concurrency_limit=1)  # fmt: skip
    training = train.click(train_run, [dataset, root], [status, live, folder], api_name="train",
                           concurrency_id="device", concurrency_limit=1)  # fmt: skip
    stop.click(lambda: "Stopping ...", None, status, cancels=[running, training], api_visibility="private")
    again.click(lambda: gr.Dropdown(choices=trained_runs(Path("runs"))), None, folder, api_visibility="private")
    threshold.release(brain_map, [folder, threshold], brain, api_name="brain_map")
    names = ("folder", "trials", "recipe", "guidance", "strength", "steps", "mask", "seed")
    return {"fields": dict(zip(names, controls, strict=True))}
