"""kay2008 on generated files of its layout and its traps, and its fetch from a server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainit import datasets
from brainit.datasets import download, kay2008
from brainit.errors import InputError, MissingDataError
from tests.brainit.datasets.conftest import kay_arrays, write_kay


def opened(tmp: Path, options: dict[str, Any] | None = None, **changes: Any) -> Any:
    return datasets.open("kay2008", write_kay(tmp / "kay", **changes), **(options or {}))


def test_pictures_keep_their_contrast_whatever_range_they_have(tmp_path: Path) -> None:
    subject = opened(tmp_path)
    arrays = kay_arrays()
    every = np.concatenate([arrays["stimuli"], arrays["stimuli_test"]])
    expected = (every - every.min()) / np.ptp(every)
    np.testing.assert_allclose(subject.images(), expected, atol=1e-6)
    assert subject.images().min() == 0 and subject.images().max() == 1
    assert f"{every.min():.4g} is black and {every.max():.4g} white" in subject.info["pictures"]


def test_a_stated_range_is_kept_and_uint8_goes_by_its_type(tmp_path: Path) -> None:
    subject = opened(tmp_path, {"range": "-1..1"})
    np.testing.assert_allclose(subject.images()[:16], (kay_arrays()["stimuli"] + 1) / 2, atol=1e-6)
    codes = np.random.default_rng(1).integers(20, 200, (22, 8, 8), dtype=np.uint8)
    subject = opened(tmp_path / "codes", stimuli=codes[:16], stimuli_test=codes[16:])
    np.testing.assert_allclose(subject.images(), codes / 255, atol=1e-6)


def test_one_broken_pixel_is_named(tmp_path: Path) -> None:
    stimuli = kay_arrays()["stimuli"]
    stimuli[0, 0, 0] = 99
    assert any(
        "single pixels stretch the range" in w for w in opened(tmp_path, stimuli=stimuli).info["warnings"]
    )


def test_nan_voxels_leave_train_test_and_regions_alike(tmp_path: Path) -> None:
    arrays = kay_arrays()
    arrays["responses"][3, 4] = np.nan  # code 1
    arrays["responses_test"][2, 9] = np.inf
    subject = opened(tmp_path, **{k: arrays[k] for k in ("responses", "responses_test")})
    assert subject.n_voxels == 28 and np.isfinite(subject.betas).all()
    kept = [v for v in range(30) if v not in (4, 9)]
    np.testing.assert_array_equal(subject.part("test").betas, arrays["responses_test"][:, kept].astype("f4"))
    np.testing.assert_array_equal(subject.roi["V1"], arrays["roi"][kept] == 1)
    assert any("dropped 2 of 30 voxels with NaN" in w for w in subject.info["warnings"])
    with pytest.raises(InputError, match="2 of 30 voxels hold NaN"):
        datasets.open("kay2008", tmp_path / "kay", nan="error")


@pytest.mark.parametrize("first", [(), ("Other",), ("0ther",)])
def test_code_0_is_no_region(tmp_path: Path, first: tuple[str, ...]) -> None:
    subject = opened(tmp_path, roi_names=np.array([*first, "V1", "V2", "V3", "V3A", "V3B", "V4", "LatOcc"]))
    assert list(subject.roi) == ["V1", "V2", "V3", "V3A", "V3B", "V4", "LatOcc"]
    codes = kay_arrays()["roi"]
    assert (codes == 0).sum() > 0 and subject.n_voxels == codes.size
    for k, inside in enumerate(subject.roi.values(), start=1):
        np.testing.assert_array_equal(inside, codes == k)


def test_labels_have_four_levels(tmp_path: Path) -> None:
    assert opened(tmp_path).labels[:2].tolist() == ["l1-0", "unlabelled"]
    root = tmp_path / "kay"
    assert datasets.open("kay2008", root, label_level=4).labels[-1] == "l4-5"
    for level in (5, 0, 1.0, True, "1"):
        with pytest.raises(InputError, match=rf"label_level is {level!r}; allowed: 1"):
            datasets.open("kay2008", root, label_level=level)
    (root / "kay_labels_val.npy").unlink()
    subject = datasets.open("kay2008", root)
    assert subject.labels is None and any(
        "holds no kay_labels_val.npy" in w for w in subject.info["warnings"]
    )
    (root / "kay_labels.npy").unlink()
    assert datasets.open("kay2008", root).labels is None


def test_no_place_is_said_plainly(tmp_path: Path) -> None:
    subject = opened(tmp_path)
    assert not subject.has_places and subject.mask is None
    with pytest.raises(InputError, match="no NIfTI map can be written"):
        subject.to_image(np.zeros(subject.n_voxels))
    said = [f.message for f in datasets.check("kay2008", tmp_path / "kay")]
    assert any("no NIfTI map can be written" in line for line in said)
    assert any("stimuli has 16 rows; the published file has 1750" in line for line in said)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "pickled": ({"roi_names": np.array([{}], dtype=object)}, "pickled objects"),
    "no roi": ({"roi": None}, "array 'roi' is missing"),
    "flat pictures": ({"stimuli": kay_arrays()["stimuli"].reshape(16, -1)}, "stimuli must be"),
    "pictures of two sizes": ({"stimuli_test": np.ones((6, 9, 9))}, "of one size"),
    "a response too few": ({"responses": kay_arrays()["responses"][1:]}, "a picture for each response"),
    "a voxel too few": ({"responses_test": kay_arrays()["responses_test"][:, 1:]}, "the same voxels"),
    "a code too few": ({"roi": kay_arrays()["roi"][1:]}, "the same voxels"),
    "a code without a name": ({"roi": np.full(30, 8)}, "roi holds code 8 and roi_names name 7"),
    "codes that are fractions": ({"roi": np.full(30, 0.5)}, "codes 0, 1, 2"),
    "a code NaN": ({"roi": np.full(30, np.nan)}, "codes 0, 1, 2"),
    "names of other regions": ({"roi_names": np.array(["FFA", "PPA"])}, "roi_names begins with ['FFA']"),
    "a region twice": ({"roi_names": np.array(["V1", "V1"] + ["V2"] * 6)}, "region 'V1' is there twice"),
    "flat grey": ({"stimuli": np.zeros((16, 8, 8)), "stimuli_test": np.zeros((6, 8, 8))}, "everywhere"),
    "a pixel NaN": ({"stimuli": np.full((16, 8, 8), np.nan)}, "are NaN or infinite"),
    "whole numbers": (
        {"stimuli": np.ones((16, 8, 8), int), "stimuli_test": np.ones((6, 8, 8), int)},
        "range=LOW",
    ),
    "words as responses": ({"responses": np.full((16, 30), "a")}, "allowed: numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line(tmp_path: Path, case: str) -> None:
    changes, says = BAD[case]
    with pytest.raises(InputError) as caught:
        opened(tmp_path, **changes)
    assert says in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 2


@pytest.mark.parametrize("words", [np.full((16, 4), "a"), np.full((3, 16), "a"), np.zeros((4, 16))])
def test_labels_of_another_form_are_refused(tmp_path: Path, words: np.ndarray) -> None:
    root = write_kay(tmp_path / "kay")
    np.save(root / "kay_labels.npy", words)
    with pytest.raises(InputError, match=r"words of shape \(4, 16\)"):
        datasets.open("kay2008", root)


def test_a_leak_is_found_through_the_range(tmp_path: Path) -> None:
    tested = kay_arrays()["stimuli_test"]
    tested[:2] = kay_arrays()["stimuli"][:2]
    errors = [
        f.message for f in datasets.check("kay2008", write_kay(tmp_path / "kay", stimuli_test=tested))
        if f.severity == "error"
    ]  # fmt: skip
    assert len(errors) == 1 and "2 of 6 test pictures in training (2 exact" in errors[0]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served on loopback in place of OSF."""
    served = write_kay(tmp_path / "served")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(kay2008, "URLS", {name: f"{base}/{name}" for name in kay2008.URLS})
    yield served
    server.shutdown()
    server.server_close()


def test_fetch_keeps_the_hash_of_the_first_fetch(host: Path, tmp_path: Path) -> None:
    root, seen = tmp_path / "root", []
    assert datasets.fetch("kay2008", root, lambda *step: seen.append(step)) == root
    assert datasets.open("kay2008", root).n_trials == 22
    kept = json.loads((root / download.HASHES).read_text())
    assert set(kept) == set(kay2008.URLS) and all(len(value) == 64 for value in kept.values())
    assert seen[-1][0] == seen[-1][1] and "kay_labels_val.npy" in seen[-1][2]
    # what is there is kept, and nothing is asked of the host
    write_kay(host, responses=np.ones((16, 30)))
    before = (root / kay2008.FILE).read_bytes()
    datasets.fetch("kay2008", root)
    assert (root / kay2008.FILE).read_bytes() == before
    # another file under the same address is refused, and nothing is written
    (root / kay2008.FILE).unlink()
    with pytest.raises(InputError, match="another file than was fetched first"):
        datasets.fetch("kay2008", root)
    assert sorted(p.name for p in root.iterdir()) == ["kay_labels.npy", "kay_labels_val.npy", download.HASHES]


def test_a_file_that_was_changed_is_named_and_left(host: Path, tmp_path: Path) -> None:
    root = datasets.fetch("kay2008", tmp_path / "root")
    write_kay(root, responses=np.ones((16, 30)))
    with pytest.raises(InputError, match="is not the file that was here first"):
        datasets.fetch("kay2008", root)
    assert (root / kay2008.FILE).is_file()


def test_what_is_no_data_is_not_kept(host: Path, tmp_path: Path) -> None:
    (host / kay2008.FILE).write_bytes(b"<!DOCTYPE html><p>maintenance")
    with pytest.raises(InputError, match="is a web page"):
        datasets.fetch("kay2008", tmp_path / "root")
    write_kay(host)
    raw = (host / kay2008.FILE).read_bytes()
    (host / kay2008.FILE).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(InputError, match="damaged or cut short"):
        datasets.fetch("kay2008", tmp_path / "root")
    assert not list((tmp_path / "root").iterdir())


def test_a_missing_file_and_a_missing_host_are_one_line(host: Path, tmp_path: Path) -> None:
    (host / "kay_labels.npy").unlink()
    with pytest.raises(InputError, match=r"kay_labels.npy could not be downloaded .*404") as caught:
        datasets.fetch("kay2008", tmp_path / "root")
    assert "\n" not in str(caught.value)
    with pytest.raises(MissingDataError, match="brainlab data fetch kay2008"):
        datasets.open("kay2008", tmp_path)
