"""Recipes that were applied come into the comparison; the sensitivity fold's settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gradio")

import gradio as gr
import torch
from diffusers import DDIMScheduler

import quant
from lab.app.compare import page, sensitivity
from lab.errors import InputError
from lab.files import write_npz


def test_an_applied_recipe_joins_the_comparison() -> None:
    assert page.joined("", ["a"]) == ["a"] and page.joined("a", ["a"]) == ["a"]
    assert page.joined("e", ["a", "b", "c", "d"]) == ["b", "c", "d", "e"]


def test_differences_are_drawn_as_large_as_the_worst_recipe_allows() -> None:
    full = np.full((2, 8, 8, 3), 0.5)
    pictures = {"full_precision": full, "good": full + 0.01, "bad": full + 0.15}
    assert page.enlarged(pictures) == 5
    assert page.enlarged({"full_precision": full, "good": full + 0.01}) == 20
    assert page.enlarged({"full_precision": full, "awful": full + 0.45}) == 2


def test_a_pair_of_pictures_is_named_by_what_they_were_drawn_for(tmp_path: Path) -> None:
    full = np.linspace(0, 1, 2 * 8 * 8 * 3).reshape(2, 8, 8, 3)
    archive = tmp_path / "pictures.npz"
    write_npz(archive, {"full_precision": full, "rtn-w4a4": full[::-1]})
    shown = page._pair(str(archive), "rtn-w4a4 (simulated)", 9, ["class 7", "class 207"])  # the last of two
    assert shown[0] == "Picture 2: class 207"
    assert shown[1].label == "Left: full precision. Right: rtn-w4a4 (simulated)"


def test_sliders_follow_a_recording(tmp_path: Path) -> None:
    model = torch.nn.Conv2d(1, 1, 1)
    model.forward = lambda x, timestep: x  # type: ignore[method-assign]
    quant.record(model, DDIMScheduler(), None, tmp_path / "rec", n_steps=60, n_samples=1, shape=(1, 2, 2))
    steps, guidance = page.sampled_as(str(tmp_path / "rec"))
    assert (steps.value, steps.maximum, guidance.value) == (60, 60, 1)
    for other in ("", str(tmp_path)):
        assert page.sampled_as(other) == [gr.skip()] * 2


def test_the_same_question_goes_on_in_the_same_file() -> None:
    one, again = (sensitivity.asked("dit-64", "rtn-w4a4", "*attn2*", "one-on") for _ in range(2))
    other = sensitivity.asked("dit-64", "rtn-w4a4", "", "one-off")
    assert one.out == again.out != other.out and other.layers == "*"
    with pytest.raises(InputError, match="mode"):
        sensitivity.asked("dit-64", "rtn-w4a4", "*", "both")
