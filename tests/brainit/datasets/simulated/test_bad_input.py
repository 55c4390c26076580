"""Bad picture sources and settings of simulated subjects: one line each, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from brainit.datasets import simulated
from brainit.datasets.files import pictures
from brainit.errors import InputError
from tests.brainit.datasets.conftest import TINY
from tests.brainit.datasets.test_bad_input import cut


@pytest.fixture(scope="module")
def simulation(tmp_path_factory):
    return simulated.generate(tmp_path_factory.mktemp("bad") / "s", simulated.preset("small", **TINY))


def _parquet(tmp: Path, **columns) -> Path:
    path = tmp / "p.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


SOURCES = {
    "unreadable parquet": (lambda t: cut(_parquet(t, image=[b"x"] * 40)), 2, "cannot be read as parquet"),
    "parquet without images": (
        lambda t: _parquet(t, label=[1, 2]),
        2,
        "column 'image' is missing; found: label",
    ),
    "parquet of text": (lambda t: _parquet(t, image=["a"] * 40), 2, "allowed: encoded bytes"),
    "parquet of noise": (lambda t: _parquet(t, image=[b"nothing"] * 40), 2, "cannot be read as a picture"),
    "missing parquet": (lambda t: t / "none.parquet", 4, "does not exist"),
    "missing folder": (lambda t: t / "none", 4, "does not exist"),
    "folder without pictures": (lambda t: t, 4, "holds no pictures"),
    "too few pictures": (lambda t: np.zeros((3, 8, 8)), 2, "holds 3 pictures and 4 are needed"),
    "wrong shape": (lambda t: np.zeros((9, 8, 8, 5)), 2, "allowed: (n, H, W)"),
    "bright beyond 255": (lambda t: np.full((9, 8, 8), 300.0), 2, "allowed: 0..1 or 0..255"),
}


@pytest.mark.parametrize("case", SOURCES)
def test_bad_picture_sources(case, tmp_path):
    make, code, message = SOURCES[case]
    with pytest.raises(InputError) as caught:
        pictures.draw(make(tmp_path), 4, 0, 8)
    assert message in str(caught.value) and caught.value.exit_code == code and "\n" not in str(caught.value)


def test_a_damaged_picture_is_named(tmp_path):
    for k in range(4):
        (tmp_path / f"{k}.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"\.png cannot be read as a picture"):
        pictures.draw(tmp_path, 4, 0, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_voxels": 3}, "n_voxels is 3; allowed: 20 to 8000"),
        ({"n_shared": 999}, "n_shared is 999"),
        ({"speed": 1}, "no setting 'speed'"),
    ],
)
def test_bad_simulation_settings(changes, message):
    with pytest.raises(InputError, match=message):
        simulated.preset("small", **changes)


def test_unknown_preset():
    with pytest.raises(
        InputError, match="unknown preset 'huge' of simulated subjects; allowed: small, large"
    ):
        simulated.preset("huge")


def test_simulation_refuses_a_folder_with_other_things(tmp_path, simulation):
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(InputError, match="is not empty and holds no simulation"):
        simulated.generate(tmp_path)
    with pytest.raises(InputError, match="holds another simulation"):
        simulated.generate(simulation, simulated.preset("small", **TINY, seed=9))
    assert (tmp_path / "thesis.txt").read_text() == "important"


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nibabel, "save", full)
    with pytest.raises(OSError, match="No space left"):
        simulated.generate(tmp_path / "s", simulated.preset("small", **TINY))
    assert (
        not list((tmp_path / "s").glob("sub-*"))
        and not (tmp_path / "s" / "dataset_description.json").exists()
    )
