"""Pictures on their way reach whoever watches, and change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lab import zoo
from lab.decoding.drawing import draw
from lab.decoding.settings import ReconstructConfig
from lab.jobs import registry
from lab.jobs.contract import Context
from lab.previews import MOST, Preview, unseen, watcher, watching
from lab.progress import silent


def test_each_step_of_sampling_is_seen_and_the_pictures_are_the_same(tmp_path: Path) -> None:
    seen: list[Preview] = []
    asked = {"name": "unet-64", "n": MOST + 1, "steps": 3, "device": "cpu"}
    for name, context in (("a", Context(preview=seen.append)), ("b", Context())):
        settings = registry.settings("zoo sample", {**asked, "out": tmp_path / f"{name}.png"})
        registry.run("zoo sample", settings, context)
    assert [(p.what, p.step, p.steps) for p in seen] == [("unet-64", k, 3) for k in (1, 2, 3)]
    assert all(p.images.shape == (MOST, 64, 64, 3) and p.images.dtype == np.uint8 for p in seen)
    assert not np.array_equal(seen[0].images, seen[1].images)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_comparisons_show_which_recipe_is_being_drawn(tmp_path: Path) -> None:
    seen: list[Preview] = []
    settings = registry.settings("compare", {
        "model": "unet-64", "recipes": "rtn-w8a8", "n": 4, "seeds": 1, "steps": 2, "guidance": 1.0,
        "calibrate": 4, "device": "cpu", "out": tmp_path / "c",
    })  # fmt: skip
    registry.run("compare", settings, Context(preview=seen.append))
    stages = list(dict.fromkeys(p.what for p in seen))
    assert stages[0] == "full precision, seed 0" and stages[-1] == "rtn-w8a8, seed 0"
    assert {p.step for p in seen} == {1, 2} and seen[0].images.shape == (4, 64, 64, 3)


def test_a_decoding_run_is_watched_deep_inside(tmp_path: Path) -> None:
    seen: list[Preview] = []
    with watching(seen.append):
        config = ReconstructConfig(steps=4, strength=0.5, guidance=1.0, device="cpu")
        start = np.random.default_rng(0).random((2, 3, 64, 64)).astype(np.float32)
        tokens = zoo.null_tokens("unet-64").expand(2, -1, -1).numpy()
        drawn = draw(config, zoo.load("unet-64"), tokens, start, 0, (64, 64, 3), "cpu", silent)
    assert [(p.what, p.step, p.steps) for p in seen] == [("full precision", k, 2) for k in (1, 2)]
    # the last step's guess is where the way ends
    assert np.abs(seen[-1].images / 255 - drawn.clip(0, 1)).max() < 0.01
    assert watcher() is unseen
