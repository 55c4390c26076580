from __future__ import annotations

import numpy as np
import pytest

from brainit.datasets.simulated import ventral
from brainit.datasets.simulated.crowd import Person, answers
from brainit.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)
HIGH = np.random.default_rng(1).standard_normal((60, 64)).astype(np.float32)


def deep(images: np.ndarray) -> list[np.ndarray]:
    """Two stages: what lies at a place, and its square."""
    places = images.reshape(len(images), ventral.GRID, 8, ventral.GRID, 8, 3).mean((2, 4))
    flat = places.reshape(len(images), -1, 3)
    return [flat, np.concatenate([flat, flat**2], -1)]


def test_answers_are_standardised_over_the_reference_and_differ_between_people():
    people = [Person(1, 80), Person(2, 80), Person(3, 60, "prototypes")]
    found = answers(people, IMAGES, deep, HIGH, 40)
    for person, rows in zip(people, found, strict=True):
        assert rows.shape == (60, person.n_voxels) and np.isfinite(rows).all()
        std = rows[:40].std(0)
        assert abs(rows[:40].mean(0)).max() < 1e-4
        assert (np.isclose(std, 1, atol=1e-3) | (std == 0)).all() and 0.02 < (std == 0).mean() < 0.4
    assert not np.allclose(found[0], found[1])


def test_the_same_person_answers_the_same_among_others_and_in_other_batches():
    alone = answers([Person(1, 80)], IMAGES, deep, None, 40)[0]
    among = answers([Person(2, 50), Person(1, 80)], IMAGES[:50], deep, None, 40)[1]
    np.testing.assert_allclose(alone[:50], among, atol=1e-4)


def test_people_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="need high-level features"):
        answers([Person(1, 30, "prototypes")], IMAGES, deep, None, 40)
    with pytest.raises(InputError, match="allowed: 20 voxels and more"):
        Person(1, 5)
