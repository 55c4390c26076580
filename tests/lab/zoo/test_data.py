from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from lab.errors import MissingDataError
from lab.images import resize
from lab.zoo import data as zoo_data
from lab.zoo import patterns


def test_patterns_are_the_same_for_the_same_seed() -> None:
    one, two = patterns.draw(30, seed=1), patterns.draw(30, seed=1)
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
    assert not torch.equal(one[0], patterns.draw(30, seed=2)[0])
    assert one[0].dtype == torch.uint8 and one[0].shape == (30, 3, 64, 64)
    assert set(one[1].tolist()) == set(range(len(patterns.KINDS)))


def test_each_pattern_shows_something() -> None:
    images, kinds = patterns.draw(120, seed=3)
    flat = images.flatten(1).float().std(1) < 2
    # a binary grid of few cells may be of one colour; nothing else may
    assert flat.float().mean() < 0.05
    assert not flat[kinds == 0].any()


def test_training_pictures(data: Path, planted: tuple[int, ...]) -> None:
    pictures = zoo_data.training(data, n_patterns=10)
    assert pictures.images.dtype == torch.uint8 and pictures.images.shape[1:] == (3, 64, 64)
    natural = (pictures.labels < 200).sum()
    digits = ((pictures.labels >= 200) & (pictures.labels < 210)).sum()
    assert natural == 24 and (pictures.labels >= 210).sum() == 10
    assert digits == len(zoo_data._digits(data)[1]) - zoo_data.N_HELD_OUT_DIGITS - len(planted)
    batch = pictures.batch(torch.tensor([0, 5]))
    assert batch.dtype == torch.float32 and 0 <= batch.min() and batch.max() <= 1


def test_no_stimulus_of_digits69_is_trained_on(data: Path, planted: tuple[int, ...]) -> None:
    shown, _ = zoo_data._digits(data)
    images = zoo_data.training(data, n_patterns=10).images
    assert not any((images == p).flatten(1).all(1).any() for p in zoo_data._upscale(shown[list(planted)]))
    others = zoo_data._upscale(shown[[4, 41]])  # what was not shown is there, so the test can fail
    assert all((images == p).flatten(1).all(1).any() for p in others)


def test_held_out_digits_are_not_trained_on(data: Path) -> None:
    held = zoo_data.held_out(data, "digits")
    assert len(held) == zoo_data.N_HELD_OUT_DIGITS
    trained = {bytes(x.numpy().tobytes()) for x in zoo_data.training(data, n_patterns=10).images}
    assert not any(bytes(x.numpy().tobytes()) in trained for x in held.images)


def test_held_out_patterns_were_not_trained_on(data: Path) -> None:
    held = {x.numpy().tobytes() for x in zoo_data.held_out(data, "patterns").images}
    trained = {x.numpy().tobytes() for x in zoo_data.training(data).images}
    assert len(held) > 200 and not held & trained


def test_class_names(data: Path) -> None:
    assert zoo_data.class_names(data) == ["thing 0", "thing 1", "thing 2"]


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("tiny-imagenet-64/train-0.parquet", "tiny-imagenet-64/train-"),
        ("mnist10k/t10k-labels-idx1-ubyte.gz", "mnist10k"),
        ("digits69/digit69_28x28.mat", "keep its stimuli out"),
    ],
)
def test_missing_files_are_named(data: Path, tmp_path: Path, gone: str, said: str) -> None:
    root = tmp_path / "copy"
    shutil.copytree(data, root)
    (root / gone).unlink()
    with pytest.raises(MissingDataError, match=said) as caught:
        zoo_data.training(root)
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
    with pytest.raises(
        MissingDataError, match=f"{Path(gone).parent}.*with --data"
    ):  # before anything is read
        zoo_data.check(root)


def test_resize_keeps_range_and_size() -> None:
    x = (torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    y = resize(x, 64)
    assert y.shape == (2, 3, 64, 64) and y.min() >= 0 and y.max() <= 1
    assert resize(y, 64) is y


@pytest.mark.shared_data
def test_digits_stand_upright_and_none_was_shown(shared_data: Path) -> None:
    digits, _ = zoo_data._digits(shared_data)
    # The exclusion must look at digits69 the right way round: transposed it would find nothing alike.
    assert zoo_data.likeness_to_digits69(digits[:2000], shared_data).amax() > 0.8
