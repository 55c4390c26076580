"""Targets, their standardisation, and category targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brainit.errors import InputError
from brainit.training.targets import (
    Prediction,
    Targets,
    TargetScaler,
    as_table,
    category_targets,
    nearest_category,
)


def _targets(n: int = 12) -> Targets:
    torch.manual_seed(0)
    return Targets(torch.randn(n, 3, 5) * 4 + 1, [torch.randn(n, 2, 4, 4) - 3, torch.randn(n, 3, 2, 2)])


def test_flat_and_back() -> None:
    targets = _targets()
    again = targets.like(targets.flat())
    assert targets.flat().shape[1] == 15 + 32 + 12
    for a, b in zip(targets.parts, again.parts, strict=True):
        assert torch.equal(a, b)


def test_scaler_round_trip_and_unit_variance() -> None:
    targets = _targets()
    scaler = TargetScaler.fit(targets)
    flat = scaler.apply(targets)
    torch.testing.assert_close(flat.mean(0), torch.zeros(flat.shape[1]), atol=1e-5, rtol=0)
    channel = scaler.invert(flat).like(flat).structure[0][:, 1]
    assert float((channel**2).mean()) == pytest.approx(1, abs=1e-4)
    back = scaler.invert(flat)
    assert isinstance(back, Prediction)
    torch.testing.assert_close(back.tokens, targets.tokens, atol=1e-5, rtol=1e-5)


def test_constant_channel_stays_finite() -> None:
    targets = _targets()
    targets.structure[0][:, 0] = 2.0
    scaler = TargetScaler.fit(targets)
    assert torch.isfinite(scaler.apply(targets)).all()
    torch.testing.assert_close(scaler.invert(scaler.apply(targets)).structure[0], targets.structure[0])


def test_groups_cover_everything_once() -> None:
    groups = TargetScaler.fit(_targets()).groups
    assert list(groups) == ["token_global", "tokens", "structure_0", "structure_1"]
    assert torch.equal(torch.cat(list(groups.values())), torch.arange(59))


def test_table_from_mapping_finds_rows() -> None:
    targets = _targets(3)
    table = as_table(
        {name: (targets.tokens[i], [m[i] for m in targets.structure]) for i, name in enumerate("abc")}
    )
    assert torch.equal(table.take(["c", "a"]).tokens, targets.tokens[[2, 0]])
    with pytest.raises(InputError, match="first: 'z'"):
        table.rows(["a", "z"])


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="tokens must"):
        Targets(torch.zeros(2, 3), [])
    with pytest.raises(InputError, match="structural maps"):
        Targets(torch.zeros(2, 3, 4), [torch.zeros(3, 1, 2, 2)])


def test_category_targets_are_orthogonal_and_fixed() -> None:
    table = category_targets(["house", "cat", "cat", "face"], width=8)
    tokens = table.targets.tokens[:, 0]
    assert list(table.ids) == ["cat", "face", "house"]
    torch.testing.assert_close(tokens @ tokens.T, 8 * torch.eye(3), atol=1e-4, rtol=0)
    assert torch.equal(tokens, category_targets(["face", "house", "cat"], width=8).targets.tokens[:, 0])
    assert category_targets(np.arange(20).astype(str), width=4).targets.tokens.shape == (20, 1, 20)
    with pytest.raises(InputError, match="at least 2"):
        category_targets(["cat"])


def test_nearest_category_names_the_right_one() -> None:
    table = category_targets(["cat", "face", "house"], width=16)
    noisy = Prediction(table.targets.tokens[[2, 0, 1]] + 0.3 * torch.randn(3, 1, 16), [])
    assert nearest_category(noisy, table)[0].tolist() == ["house", "cat", "face"]
