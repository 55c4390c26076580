"""The scalar shortcut equals the published form, gradients too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brainit.errors import InputError
from brainit.network.tokenizer import BrainTokenizer, draw_voxels, padded_table

LABELS = np.array([0, 2, 2, 0, 5, 2, 0, 3, 3, 0, 5])  # clusters 1 and 4 are empty


def _tokenizer(**extra) -> BrainTokenizer:
    torch.manual_seed(0)
    return BrainTokenizer({"S1": LABELS, "S.2": LABELS[:7]}, 6, 8, init_std=0.7, **extra).double()


def _betas(n: int = 4, voxels: int = 11) -> torch.Tensor:
    return torch.randn(n, voxels, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2


def _keep() -> torch.Tensor:
    keep = torch.rand(4, 11, generator=torch.Generator().manual_seed(2)) > 0.4
    keep[0, LABELS == 2] = False  # a cluster without a sampled voxel in one trial only
    return keep


@pytest.mark.parametrize("sampled", [False, True])
def test_shortcut_equals_plain_form(sampled: bool) -> None:
    tokenizer, keep = _tokenizer(), _keep() if sampled else None
    short, plain = tokenizer(_betas(), "S1", keep), tokenizer.forward_plain(_betas(), "S1", keep)
    assert short.shape == (4, 6, 8)
    assert (short - plain).abs().max() < 1e-10


@pytest.mark.parametrize("sampled", [False, True])
def test_gradients_are_equal(sampled: bool) -> None:
    keep = _keep() if sampled else None
    weight = torch.randn(4, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    grads = []
    for name in ("forward", "forward_plain"):
        tokenizer, betas = _tokenizer(), _betas().requires_grad_()
        (getattr(tokenizer, name)(betas, "S1", keep) * weight).sum().backward()
        own = {key: p.grad for key, p in tokenizer.named_parameters() if p.grad is not None}
        grads.append({**own, "betas": betas.grad})
    assert grads[0].keys() == grads[1].keys()
    for key in grads[0]:
        assert torch.isfinite(grads[0][key]).all()
        assert (grads[0][key] - grads[1][key]).abs().max() < 1e-10, key


def test_a_key_bias_would_cancel() -> None:
    tokenizer = _tokenizer()
    before = tokenizer.forward_plain(_betas(), "S1")
    tokenizer.key.bias = torch.nn.Parameter(torch.randn(8, dtype=torch.float64))
    assert (tokenizer.forward_plain(_betas(), "S1") - before).abs().max() < 1e-10


def test_empty_cluster_is_its_skip_connection() -> None:
    tokenizer = _tokenizer()
    tokens = tokenizer(_betas(), "S1")
    expected = tokenizer.norm(torch.relu(tokenizer.skip(tokenizer.clusters[[1, 4]])))
    assert (tokens[:, [1, 4]] - expected).abs().max() < 1e-12


def test_voxel_order_within_a_cluster_does_not_matter() -> None:
    tokenizer = _tokenizer()
    order = torch.randperm(11, generator=torch.Generator().manual_seed(5))
    tokenizer.add_subject("S3", LABELS[order.numpy()], tokenizer.voxels["S1"][order])
    assert (tokenizer(_betas(), "S1") - tokenizer(_betas()[:, order], "S3")).abs().max() < 1e-12


def test_attention_is_a_map_that_sums_to_one_a_cluster() -> None:
    tokenizer = _tokenizer()
    alpha = tokenizer.attention(_betas(), "S1")
    for k in (0, 2, 3, 5):
        torch.testing.assert_close(alpha[:, LABELS == k].sum(1), torch.ones(4, dtype=torch.float64))
    pooled = (alpha * _betas())[:, LABELS == 2] @ tokenizer.voxels["S1"][LABELS == 2]
    own = tokenizer.value(pooled) + tokenizer.skip(tokenizer.clusters[2])
    assert (tokenizer.norm(torch.relu(own)) - tokenizer(_betas(), "S1")[:, 2]).abs().max() < 1e-12


def test_large_responses_do_not_overflow() -> None:
    assert torch.isfinite(_tokenizer()(_betas() * 1e5, "S1")).all()


def test_subjects_share_all_but_their_voxels() -> None:
    tokenizer = _tokenizer()
    assert {k for k in tokenizer.state_dict() if "S_2" in k or "S1" in k} == {
        f"{what}{name}" for what in ("voxels.", "labels_", "table_") for name in ("S1", "S_2")
    }
    assert tokenizer(_betas(voxels=7), "S.2").shape == (4, 6, 8)


@pytest.mark.parametrize(
    ("name", "voxels", "words"), [("S9", 11, "unknown subject"), ("S1", 10, "11 voxels")]
)
def test_wrong_subject_or_voxels(name: str, voxels: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        _tokenizer()(_betas(voxels=voxels), name)


def test_voxel_gain_sets_the_pooled_spread() -> None:
    tokenizer = BrainTokenizer({"S1": np.arange(4000) % 4}, 4, 32, voxel_gain=0.5)
    pooled = tokenizer.voxels["S1"].view(1000, 4, 32).mean(0)
    assert float(pooled.std()) == pytest.approx(0.5, rel=0.15)


def test_draws_are_with_replacement_and_reproducible() -> None:
    one, two = (draw_voxels(3, 100, 100, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(one, two)
    assert 50 < one.sum(1).float().mean() < 75  # 1 - 1/e of them on average
    assert draw_voxels(3, 100, 0, torch.Generator()) is None


def test_table_lists_every_voxel_once() -> None:
    table = padded_table(torch.as_tensor(LABELS), 6)
    assert sorted(table[table >= 0].tolist()) == list(range(11))
    assert (table[[1, 4]] == -1).all()
