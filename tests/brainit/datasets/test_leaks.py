from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from brainit.datasets.leaks import find_leaks, leaks_by_others, similarity
from brainit.datasets.simulated import procedural
from brainit.subject import Subject


def make(train, test, ids=None):
    images = [np.asarray(i, np.float32) / 255 for i in [*train, *test]]
    n = len(images)
    ids = np.array(ids or [f"p{k}" for k in range(n)])
    zeros = np.zeros(n, np.int64)
    split = np.array(["train"] * len(train) + ["test"] * len(test))
    betas, xyz = np.zeros((n, 2), np.float32), np.zeros((2, 3), np.float32)
    stimuli = dict(zip(ids.tolist(), images, strict=True))
    return Subject("t", "s", False, betas, xyz, ids, zeros, zeros, zeros, split, stimuli)


@pytest.fixture(scope="module")
def scenes():
    images, labels = procedural.draw(140, 3, 64)
    return [
        Image.fromarray(i)
        for i, k in zip(images, labels, strict=True)
        if k in ("landscape", "house", "shape")
    ]


def _jpeg(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


CHANGES = {
    "jpeg": _jpeg,
    "smaller": lambda i: i.resize((32, 32), Image.Resampling.BOX),
    "blurred": lambda i: i.filter(ImageFilter.GaussianBlur(1)),
    "brighter": lambda i: i.point(lambda v: min(255, int(v * 1.15))),
    "mirrored": lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "grey": lambda i: i.convert("L"),
}


@pytest.mark.parametrize("change", [k for k in CHANGES if k != "grey"])
def test_near_duplicates_are_found(scenes, change):
    test = [CHANGES[change](i) for i in scenes[:10]]
    report = find_leaks(make(scenes[:30], [*test, *scenes[40:50]]))
    assert report.leak_test_in_train >= 9 and report.exact <= 1
    assert {(a, b) for a, b, _ in report.pairs} <= {(f"p{30 + k}", f"p{k}") for k in range(10)}


def test_exact_duplicates_under_another_name_are_exact(scenes):
    report = find_leaks(make(scenes[:20], [scenes[4], scenes[25]]))
    assert (report.leak_test_in_train, report.exact, report.near) == (1, 1, 0)
    assert report.pairs == (("p20", "p4", 1.0),)
    assert "1 of 2 test pictures in training" in report.line()


def test_flat_pictures_leak_only_when_equal():
    flat = [np.full((8, 8), v, np.uint8) for v in (10, 200, 10)]
    report = find_leaks(make(flat[:2], flat[2:]))
    assert report.exact == 1
    assert find_leaks(make(flat[:1], flat[1:2])).leak_test_in_train == 0


def test_flat_pictures_are_compared_with_all(scenes):
    flat = [np.full((8, 8), v, np.uint8) for v in (10, 90, 200)]
    report = find_leaks(make(flat, [flat[2]]))
    assert report.exact == 1 and report.pairs[0][1] == "p2"
    assert "nan" not in report.line()


def test_a_grey_picture_equals_its_colour_copy():
    grey = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    assert find_leaks(make([np.stack([grey] * 3, -1)], [grey])).exact == 1


def test_pictures_that_other_subjects_learn_from_count(scenes):
    subject = make(scenes[:20], [scenes[25], scenes[26]])
    other = make([scenes[26], scenes[30]], [scenes[25]], ids=["a", "b", "c"])
    assert find_leaks(subject).leak_test_in_train == 0
    report = find_leaks(subject, others=[other])
    assert report.pairs == (("p21", "a", 1.0),), "test pictures of others are not learned from"
    assert report.n_train == 22


def test_a_test_picture_that_another_subject_learns_from_by_another_name_is_said(scenes):
    one = make(scenes[:20], [scenes[25], scenes[26]])
    two = replace(make([scenes[30], scenes[26]], [scenes[31]], ids=["a", "b", "c"]), name="s2")
    (line,) = leaks_by_others([one, two])
    assert line.startswith("t s: 1 of its test pictures") and "(first: p21 is b of s2)" in line
    same = replace(make([scenes[26]], [scenes[31]], ids=["p21", "c"]), name="s2")
    assert not leaks_by_others([one, same]), "by name they are left out of training"
    leaky = make([*scenes[:20], scenes[26]], [scenes[26]])
    assert not leaks_by_others([leaky, two]), "its own training has it: said of itself"


def test_same_name_counts_once(scenes):
    subject = make([scenes[0], scenes[1]], [scenes[0], scenes[0], scenes[2]], ids=["a", "b", "a", "a", "c"])
    report = find_leaks(subject)
    assert (report.leak_test_in_train, report.n_test, report.n_train) == (1, 2, 2)


def test_different_pictures_stay_apart(scenes):
    score = similarity([np.asarray(i) / 255.0 for i in scenes], [np.asarray(i) / 255.0 for i in scenes])
    np.testing.assert_allclose(np.diag(score), 1, atol=1e-5)
    assert score[~np.eye(len(scenes), dtype=bool)].max() < 0.85


@pytest.mark.shared_data
def test_digits_of_one_kind_are_no_leak(shared_data):
    from brainit import datasets

    report = find_leaks(datasets.open("digits69", shared_data / "digits69"))
    assert report.leak_test_in_train == 0 and report.closest < 0.85 and report.checked == "pictures"
