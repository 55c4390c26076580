"""Maps of voxels: on the mask's grid, read back, attention averaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from brainit.errors import InputError
from brainit.voxels.maps import mean_attention, write_clusters, write_map


@pytest.fixture
def placed(sample):
    """Return a subject of 30 voxels that lie in a mask."""
    inside = np.zeros((4, 4, 3), np.uint8)
    inside.ravel()[3:33] = 1
    return replace(sample.subjects[0], mask=nibabel.Nifti1Image(inside, np.diag([3.0, 3, 3, 1])))


def test_values_lie_where_the_voxels_are(placed, tmp_path: Path) -> None:
    path = write_map(placed, np.arange(30, dtype=np.float32), tmp_path / "a.nii.gz")
    image = nibabel.load(path)
    inside = np.asarray(placed.mask.dataobj) != 0
    assert np.array_equal(image.get_fdata()[inside], np.arange(30))
    assert (image.get_fdata()[~inside] == 0).all()
    assert np.array_equal(image.affine, placed.mask.affine)
    assert (
        path.read_bytes()
        == write_map(placed, np.arange(30, dtype=np.float32), tmp_path / "b.nii.gz").read_bytes()
    )


def test_clusters_begin_at_one(placed, tmp_path: Path) -> None:
    labels = np.arange(30) % 4
    image = nibabel.load(write_clusters(placed, labels, tmp_path / "c.nii.gz"))
    assert image.get_data_dtype() == np.int32
    assert np.array_equal(np.asarray(image.dataobj)[np.asarray(placed.mask.dataobj) != 0], labels + 1)


def test_refuses_other_voxels_and_no_mask(placed, sample, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="30 voxels, the map 29"):
        write_map(placed, np.zeros(29), tmp_path / "d.nii.gz")
    with pytest.raises(InputError, match="no mask image"):
        write_map(sample.subjects[0], np.zeros(30), tmp_path / "d.nii.gz")
    assert not list(tmp_path.iterdir())


def test_mean_attention() -> None:
    shares = {0: [[0.5, 0.5, 0, 0]], 1: [[0, 0, 0.5, 0.5]], 2: [[0.5, 0.5, 0, 0]]}
    found = mean_attention(lambda number: np.array(shares[number]), [0, 1, 2])
    np.testing.assert_allclose(found, [4 / 3, 4 / 3, 2 / 3, 2 / 3])
    with pytest.raises(InputError, match="no output"):
        mean_attention(lambda number: np.zeros((1, 4)), [])
