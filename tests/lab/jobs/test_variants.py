"""The same pictures by several recipes: of a model of one's own with its recording; what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import quant
from lab.errors import InputError
from lab.jobs import registry
from lab.jobs.contract import Context
from lab.jobs.models import look, painters, variants


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folder of a tiny U-Net with random weights, and a recording of it."""
    from diffusers import DDIMScheduler, UNet2DModel

    torch.manual_seed(0)
    home = tmp_path_factory.mktemp("mine")
    model = UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(32, 32),
        norm_num_groups=8, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    model.save_pretrained(home / "model")
    quant.record(model, DDIMScheduler(), None, home / "recording", n_steps=3, n_samples=8, shape=(3, 8, 8))
    return home / "model", home / "recording"


def _asked(mine: tuple[Path, Path], out: Path, **more: Any) -> Any:
    given = {"model": str(mine[0]), "recording": str(mine[1]), "recipes": "rtn-w8a8,rtn-w4a4", "n": 4,
             "out": out, **more}  # fmt: skip
    return registry.settings("variants", given)


def test_a_model_of_my_own_is_compared_on_its_recording(mine: tuple[Path, Path], tmp_path: Path) -> None:
    found: Any = registry.run("variants", _asked(mine, tmp_path / "out"), Context())
    full, eight, four = found.rows
    assert full["PSNR to full (dB)"] is None and found.pictures_are == painters.CHANNELS
    assert found.pictures_of == [f"noise {number} of seed 0" for number in (1, 2, 3, 4)]
    said = "pictures, row by row: noise 1 of seed 0; noise 2 of seed 0; "
    assert found.tables()[-1].rows[0]["text"].startswith(said)
    with Image.open(tmp_path / "out" / "rtn-w4a4.png") as sheet:
        assert sheet.text["Description"].startswith(f"rtn-w4a4; {said}")  # type: ignore[attr-defined]
    assert eight["PSNR to full (dB)"] > four["PSNR to full (dB)"] + 6
    low, high = found.intervals["rtn-w4a4"]["PSNR to full (dB)"]
    assert low <= four["PSNR to full (dB)"] <= high
    # all start from the same noise; what 4 bits do is larger at every later step
    assert len(found.timesteps) == 4 and [way[0] for way in found.along.values()] == [0, 0]
    assert all(a < b for a, b in zip(found.along["rtn-w8a8"][1:], found.along["rtn-w4a4"][1:], strict=True))
    assert f"[{low:.3g}, {high:.3g}]" in found.shown()[2]["PSNR to full (dB)"]


def test_sheets_of_an_earlier_call_do_not_stay_beside_others(mine: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    registry.run("variants", _asked(mine, out), Context())
    (out / "mine.png").write_bytes(b"another's")
    registry.run("variants", _asked(mine, out, recipes="rtn-w6a6", n=5), Context())
    assert {file.name for file in out.iterdir()} == {
        "full_precision.png", "rtn-w6a6.png", "pictures.npz", "mine.png",
    }  # fmt: skip


def test_what_does_not_fit_the_recording_is_refused_at_once(mine: tuple[Path, Path], tmp_path: Path) -> None:
    for more, words in (({"steps": 5}, "steps"), ({"n": 2}, "at least 4"), ({"recipes": "a"}, "preset 'a'")):
        with pytest.raises((InputError, quant.InputError), match=words):
            registry.run("variants", _asked(mine, tmp_path / "no", **more), Context())
        with pytest.raises((InputError, quant.InputError), match=words):
            registry.dry_run("variants", _asked(mine, tmp_path / "no", **more))
    assert not (tmp_path / "no").exists()
    with pytest.raises(InputError, match="give a recording"):
        variants.check(registry.settings("variants", {"model": str(mine[0])}))  # type: ignore[arg-type]


def test_pictures_are_named_by_what_they_were_drawn_for() -> None:
    labels, tokens = torch.tensor([7, 207]), torch.zeros(2, 5, 3)
    assert painters.conditions_named(labels, [3, 9], 0, 2) == ["class 7", "class 207"]
    assert painters.conditions_named(tokens, [3, 9], 0, 2)[1] == "condition of sample 9 of the recording"
    assert painters.stimuli_named([1, 0])[0] == "shipped stimulus 1 (made for: barrel)"


def test_a_look_at_a_model_of_my_own(mine: tuple[Path, Path]) -> None:
    seen = look.run(look.Settings(model=str(mine[0]), recording=mine[1]), Context())
    assert "mid_block.resnets.0.conv1" in seen.inputs and len(seen.settings["timesteps"]) == 3
