from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from lab import zoo
from lab.errors import InputError, MissingDataError
from lab.files import read_npz
from lab.images import sheet
from lab.zoo import stimuli


def test_shipped_pictures() -> None:
    images, labels = stimuli.load()
    assert images.shape == (800, 64, 64, 3) and images.dtype == np.uint8
    assert labels.shape == (800,) and len(set(labels.tolist())) > 100
    assert len(np.unique(images.reshape(800, -1), axis=0)) == 800
    assert images.reshape(800, -1).std(1).min() > 5
    assert stimuli.SHEET.stat().st_size < 2.5e6


def test_sheet_puts_each_picture_in_its_place() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    laid = sheet(images, columns=3, gap=1)
    assert laid.shape == (6, 9, 3)
    assert laid[0, 3, 0] == 1 and laid[3, 3, 0] == 4 and laid[5, 8, 0] == 255 and laid[3, 6, 0] == 255


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, denoiser: nn.Module) -> Path:
    """Small models in the shipped ones' places and a folder of their own to write to."""
    monkeypatch.setattr(stimuli, "SHEET", tmp_path / "sheet.webp")
    monkeypatch.setattr(stimuli, "CARD", tmp_path / "card.json")
    monkeypatch.setattr(stimuli, "FIRST", 4)
    monkeypatch.setattr(stimuli, "CHUNK", 3)
    real = zoo.load
    small = {"unet-64": denoiser, "encoder-64": lambda x: real("encoder-64")(x)[..., :12]}
    monkeypatch.setattr(zoo, "load", lambda name, device="cpu": small.get(name) or real(name, device))
    null = zoo.null_tokens("unet-64")[:, :12]
    monkeypatch.setattr(zoo, "null_tokens", lambda name: null)
    return tmp_path


def test_a_stopped_run_goes_on_to_the_same_pictures(own: Path, data: Path) -> None:
    card = stimuli.make(data, own / "whole", n=7, steps=2)
    whole, labels = stimuli.load()
    assert whole.shape == (7, 64, 64, 3) and labels.tolist() == card["labels"]
    assert labels[0] == "thing 1"  # picture 4 of the three classes dealt in turn

    def stop(done: int, total: int, what: str) -> None:
        if done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stimuli.make(data, own / "parts", n=7, steps=2, progress=stop)
    assert len(list((own / "parts").glob("chunk-*.npz"))) == 1
    stimuli.make(data, own / "parts", n=7, steps=2)
    for number in range(3):
        one, two = (read_npz(own / f / f"chunk-{number:03d}.npz")["images"] for f in ("whole", "parts"))
        assert np.array_equal(one, two)
    assert np.array_equal(stimuli.load()[0], whole)


def test_other_settings_do_not_mix(own: Path, data: Path) -> None:
    stimuli.make(data, own / "a", n=2, steps=1)
    with pytest.raises(
        InputError, match="holds pictures with another seed; give another --out, or delete chunk-000"
    ):
        stimuli.make(data, own / "a", n=2, steps=1, seed=1)


def test_bad_input(own: Path, data: Path) -> None:
    with pytest.raises(InputError, match="n is 9; there are conditions for 1 to 8 pictures"):
        stimuli.make(data, own / "a", n=9)
    with pytest.raises(InputError, match="steps is 0"):
        stimuli.make(data, own / "a", n=2, steps=0)
    with pytest.raises(MissingDataError, match="brainlab zoo stimuli"):
        stimuli.load()
