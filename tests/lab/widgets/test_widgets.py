"""Widgets without a browser: state, traits, forms, cancelling, what a saved notebook shows."""

from __future__ import annotations

import base64
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest

w = pytest.importorskip("ipywidgets")
pytest.importorskip("anywidget")

import torch  # noqa: E402
from diffusers import DDIMScheduler, UNet2DModel  # noqa: E402

import quant  # noqa: E402
from lab import widgets  # noqa: E402
from lab.errors import InputError  # noqa: E402
from lab.jobs import registry  # noqa: E402
from lab.widgets import forms, views  # noqa: E402


@pytest.mark.parametrize(
    "file", sorted((Path(views.__file__).parent / "static").glob("*.js")), ids=lambda f: f.stem
)
def test_javascript_asks_nothing_of_the_outside(file: Path) -> None:
    text = file.read_text().replace('"http://www.w3.org/2000/svg"', "")  # the name of a namespace
    assert not re.search(r"https?:|//[\w.]+\.\w+/|import\s*\(|\bfrom\s+[\"']|fetch\(|XMLHttp|innerHTML", text)
    assert "export default { render }" in text and len(text) < 6000


def _png(widget: Any) -> bytes:
    data, _ = widget._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    return base64.b64decode(data["image/png"])


def test_a_heat_map_says_what_was_clicked_and_leaves_a_picture() -> None:
    view = views.HeatMap()
    values = np.ones((3, 500))
    values[2, 499] = 40.0
    view.show(values, [900.0, 500.0, 100.0], "Input of a")
    assert view.shape == [3, 240] and "up to 40" in view.title
    assert view.note.startswith("columns: channels 0 to 499; rows: timesteps 900 (top) to 100")
    view.selected = [2, 239]
    assert "timestep 100: largest magnitude 40" in view.note
    assert _png(view).startswith(b"\x89PNG")
    assert _png(views.HeatMap()).startswith(b"\x89PNG")  # before anything is shown
    even = views.HeatMap()
    even.show(np.ones((2, 3)), [900.0, 100.0], "the same everywhere")
    assert even.picture().shape[1] > 400


def test_slices_open_where_most_is_and_hide_below_the_threshold() -> None:
    view = views.BrainSlices()
    volume = np.zeros((6, 5, 4))
    volume[1:4, 1:3, 2] = 0.5
    volume[2, 2, 2] = 1.0
    view.show(volume, "noise ceiling")
    assert view.slice == 2 and view.shape == [6, 5, 4] and len(view.values) == 120
    many = np.ptp(view.picture(), axis=-1).astype(bool).sum()  # pixels with a colour, the scale's included
    view.threshold = 200
    assert 0 < np.ptp(view.picture(), axis=-1).astype(bool).sum() < many and _png(view)
    assert _png(views.BrainSlices()).startswith(b"\x89PNG")  # before anything is shown


def test_a_grid_from_right_to_left_is_turned_and_the_title_says_the_sides() -> None:
    volume = np.zeros((4, 3, 2), np.float32)
    volume[0, 2, 1] = 1.0  # the person's right, front, top: x runs from right to left in this file
    subject = SimpleNamespace(
        name="S1", simulated=False, to_image=lambda _: nibabel.Nifti1Image(volume, np.diag([-3.0, 3, 3, 1]))
    )
    view = widgets.brain_map(subject, np.ones(1), "r")
    assert np.argwhere(np.frombuffer(view.values, np.uint8).reshape(view.shape)).tolist() == [[3, 2, 1]]
    assert view.title == "S1: r; left is left, the front above; up to 1"


def test_levels_that_are_left_out_of_a_histogram_are_said() -> None:
    view = views.Histogram()
    for count, each, drawn in ((64, 1, 64), (255, 4, 64)):
        found = SimpleNamespace(levels=np.linspace(-1, 1, count), low=-1.0, high=1.0)
        view.show(np.ones(16), np.linspace(-1, 1, 17), found, "int")
        assert view.each == each and len(view.levels) == drawn
        assert np.asarray(view.density) @ np.diff(view.edges) == pytest.approx(1)


def test_inspecting_answers_from_what_was_seen() -> None:
    shown = widgets.inspect("dit-64")
    play = shown.playground
    eight = (play.controls["bits"].__setattr__("value", 8), play.answer.wait(), play.found.sqnr_db)[-1]
    play.controls["bits"].value = 4
    play.answer.wait()
    assert play.found.sqnr_db < eight - 10 and f"{play.found.sqnr_db:.2f}" in play.numbers.value
    assert "simulated" in play.view.title and len(play.view.levels) <= 64
    play.view.clip = 0.5  # a drag
    play.answer.wait()
    assert play.controls["clip"].value == 0.5 and play.found.clipped > 0
    before = shown.heat.title
    shown.layer.value = shown.layer.options[-1]
    assert shown.heat.title != before and shown.layer.value in shown.source.value
    assert len(_png(play.view)) < 60_000
    assert _png(play) == _png(play.view) and len(_png(shown)) < 60_000  # what a saved notebook keeps
    saved, _ = play.numbers._repr_mimebundle_()
    assert saved["text/html"] == play.numbers.value  # for a viewer without widgets


def test_the_same_numbers_as_the_command() -> None:
    play = widgets.quantizer_playground(widgets.inspect("dit-64").seen.inputs[_largest()])
    play.controls["bits"].value = 5
    play.answer.wait()
    found: Any = registry.module("whatif").run(registry.settings("whatif", {"bits": 5}), _context())
    assert (found.mse, found.sqnr_db) == (play.found.mse, play.found.sqnr_db)


def _largest() -> str:
    return widgets.inspect("dit-64").layer.value


def _context() -> Any:
    from lab.jobs.contract import Context

    return Context()


def test_a_form_is_made_from_settings_and_refuses_in_one_sentence() -> None:
    form = widgets.compare(recipes=("rtn-w4a4",), n=2)
    assert isinstance(form.controls["n"], w.IntSlider) and form.controls["n"].value == 2
    assert form.settings().recipes == ("rtn-w4a4",)
    form.controls["recipes"].value = "rtn-w4a4,rtn-w4a4"
    assert form.start().wait() is None and "given twice" in form.status.value
    assert not form.run_button.disabled
    with pytest.raises(InputError, match="not a run folder"):
        registry.run("brain decode", widgets.reconstruct("nowhere").settings(), _context())


def test_a_job_runs_below_its_form_and_stops_within_a_second(tmp_path: Path) -> None:
    form = widgets.compare(recipes=("rtn-w8a8",), n=1, steps=2, out=tmp_path / "out")
    result = form.start().wait()
    assert form.status.value == "Done." and result.rows[1]["recipe"] == "rtn-w8a8"
    assert "PSNR" in form.shown.children[0].value and len(form.shown.children[1].children) == 2
    form.controls["steps"].value = 100
    form.start()
    while "step" not in form.status.value and form.run_button.disabled:
        time.sleep(0.02)
    began = time.monotonic()
    form.cancel()
    form.wait()
    assert form.status.value == "Stopped." and time.monotonic() - began < 1


def test_tables_are_text() -> None:
    assert "<script>" not in forms.table([{"a": "<script>", "<b>": None}])


def test_a_subject_on_slices(trained_run: Path) -> None:
    from lab.app.brain.maps import subject_of

    subject, words = subject_of(str(trained_run))
    view = widgets.brain_map(subject)
    assert "simulated subject" in view.title and max(view.values) == 255
    assert "Simulated subject" in words and "eak" in words
    assert "simulated" in subject._repr_html_()


def test_a_model_of_ones_own_comes_with_its_recording(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4,
    )  # fmt: skip
    model.save_pretrained(tmp_path / "own")
    quant.record(model, DDIMScheduler(), None, tmp_path / "rec", n_steps=3, n_samples=4)
    given = {"model": str(tmp_path / "own"), "recording": tmp_path / "rec"}
    assert "own" in widgets.inspect(**given).source.value
    asked = widgets.compare(**given, recipes=("rtn-w8a8",)).settings()
    assert (asked.steps, asked.guidance, asked.recording) == (3, 1.0, tmp_path / "rec")


def test_a_decoded_trial_says_its_leak_check_and_what_is_odd(tmp_path: Path) -> None:
    from PIL import Image

    from lab.jobs.brain import decode

    Image.new("RGB", (4, 4)).save(tmp_path / "sheet.png")
    found = decode.Result(
        rows=[], shown=["stimulus"], leak_line="leak check: 0 of 4", simulated_subject=True,
        arithmetic="W4A4", regions=[], sheet=str(tmp_path / "sheet.png"), archive="",
        warnings=("3 voxels never change",),
    )  # fmt: skip
    words = widgets.reconstruct("nowhere").show(found)[0].value
    assert "simulated subject" in words and "leak check: 0 of 4" in words and "3 voxels never change" in words
