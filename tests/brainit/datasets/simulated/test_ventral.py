from __future__ import annotations

import numpy as np

from brainit.datasets.simulated import anatomy, ventral

PLACES = ventral.GRID**2


def stages(n: int = 200, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9)
    return [
        (rng.standard_normal((n, PLACES, c)) @ mixing.standard_normal((c, c)) + 3).astype(np.float32)
        for c in (6, 8, 10)
    ]


def cortex(n: int = 300) -> anatomy.Cortex:
    return anatomy.without_places(n, np.random.default_rng(0))


def ventral_voxels(made: anatomy.Cortex) -> np.ndarray:
    return np.flatnonzero(made.area >= anatomy.AREAS.index("hV4"))


def test_components_are_white_and_the_same_on_every_call():
    maps = stages()
    learned = ventral.learn_stages(maps, 5)
    for found in learned.components(maps):
        rows = found.reshape(-1, found.shape[-1]).astype(np.float64)
        np.testing.assert_allclose(rows.T @ rows / len(rows), np.eye(5), atol=0.01)
        assert abs(rows.mean(0)).max() < 0.01
    again = ventral.learn_stages(maps, 5)
    assert all(np.array_equal(a, b) for a, b in zip(learned.bases, again.bases, strict=True))


def test_voxels_read_later_stages_the_further_down_the_stream_and_with_larger_fields():
    made = cortex(2000)
    voxel = ventral_voxels(made)
    mixed = ventral.mix(made, voxel, 0.5, 0, np.random.default_rng(1), n_stages=4, n_components=5)
    area = made.area[voxel]
    mean_stage = [mixed.stage[area == anatomy.AREAS.index(a)].mean() for a in ("hV4", "LO", "FFA")]
    assert mean_stage[0] == 0 and 0.4 < mean_stage[1] < 0.6 and mean_stage[2] == 1
    size = [np.median(made.sigma[made.area == k]) for k in range(len(anatomy.AREAS))]
    assert size == sorted(size)
    assert np.allclose(mixed.field.sum(1), 1, atol=1e-4)


def test_a_drive_is_the_sum_it_is_said_to_be():
    maps, made = stages(7), cortex()
    voxel = ventral_voxels(made)
    learned = ventral.learn_stages(stages(), 5)
    mixed = ventral.mix(made, voxel, 0.5, 0, np.random.default_rng(1), n_stages=3, n_components=5)
    components = learned.components(maps)
    found = ventral.drive(mixed, components)
    for v in (0, len(voxel) // 2, len(voxel) - 1):
        both = [components[mixed.stage[v] + k] for k in range(2)]
        wanted = sum(
            np.einsum("p,npc,c->n", mixed.field[v], c, w) for c, w in zip(both, mixed.weights[v], strict=True)
        )
        np.testing.assert_allclose(found[:, v], wanted, rtol=1e-3, atol=1e-4)


def test_own_is_the_share_that_voxels_of_a_kind_do_not_have_in_common():
    made = cortex(3000)
    voxel = ventral_voxels(made)

    def likeness(own: float) -> float:
        mixed = ventral.mix(made, voxel, own, 0, np.random.default_rng(1))
        same = np.flatnonzero(mixed.kind == mixed.kind[0])
        rows = mixed.weights[same].reshape(same.size, -1)
        r = np.corrcoef(rows)
        return float(r[np.triu_indices(same.size, 1)].mean())

    found = [likeness(own) for own in (0.0, 0.5, 1.0)]
    assert found[0] > 0.999 and 0.3 < found[1] < 0.7 and abs(found[2]) < 0.1
