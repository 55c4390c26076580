"""Pictures on their way reach whoever watches, and change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lab.jobs import registry
from lab.jobs.contract import Context, Preview
from lab.jobs.previews import MOST


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
