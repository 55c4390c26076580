"""Cross-transformer and the two branches: shapes, query subsets, sizes of the presets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from brainit.errors import InputError
from brainit.network.model import brain_it
from brainit.network.transformer import CrossTransformer

SHAPES = [(3, 5), (2, 4, 4), (3, 2, 2)]


def _transformer() -> CrossTransformer:
    torch.manual_seed(0)
    net = CrossTransformer([(3, 5), (16, 2)], width=16, heads=2, depth=2, init_std=0.5)
    for head in net.heads:
        torch.nn.init.normal_(head.weight)
    return net.eval()


def test_untrained_model_says_the_mean_picture() -> None:
    net = CrossTransformer([(3, 5)], width=16, heads=2, depth=1)
    assert torch.count_nonzero(net(torch.randn(2, 4, 16))[0]) == 0


def test_a_subset_of_queries_gives_the_same_numbers() -> None:
    net, tokens = _transformer(), torch.randn(2, 6, 16)
    whole = net(tokens)
    places = torch.tensor([7, 2, 11])
    part = net(tokens, [None, places])
    torch.testing.assert_close(part[0], whole[0])
    torch.testing.assert_close(part[1], whole[1][:, places])


def test_order_of_brain_tokens_does_not_matter() -> None:
    net, tokens = _transformer(), torch.randn(2, 6, 16)
    for a, b in zip(net(tokens), net(tokens[:, torch.randperm(6)]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_block_count_is_depth_self_and_one_more_cross() -> None:
    net = CrossTransformer([(3, 5)], width=16, heads=2, depth=5)
    assert (len(net.self_blocks), len(net.cross_blocks)) == (5, 6)


def test_cluster_weights_sum_to_one() -> None:
    weights = _transformer().cluster_weights(torch.randn(2, 6, 16), 1, 3)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))


def test_width_must_hold_the_heads() -> None:
    with pytest.raises(InputError, match="multiple"):
        CrossTransformer([(3, 5)], width=10, heads=4, depth=1)


@pytest.mark.parametrize("shared", [False, True])
def test_brain_it_outputs(shared: bool) -> None:
    labels = {"S1": np.arange(20) % 4}
    net = brain_it(labels, 4, SHAPES, width=16, heads=2, depth=1, shared=shared)
    assert len(net.networks) == (1 if shared else 2)
    betas = torch.randn(2, 20)
    assert [tuple(part.shape) for part in net(betas, "S1")] == [(2, 3, 5), (2, 16, 2), (2, 4, 3)]
    places = [torch.tensor([1, 2]), None]
    assert [tuple(part.shape) for part in net(betas, "S1", places)] == [(2, 3, 5), (2, 2, 2), (2, 4, 3)]
    assert net.forward_flat(betas, "S1").shape == (2, 15 + 32 + 12)
    for scale, query in ((None, 2), (0, 15), (1, 3)):
        share = net.attention_map(betas, "S1", query, scale)
        torch.testing.assert_close(share.sum(1), torch.ones(2))


def test_flat_layout_is_channels_first() -> None:
    net = brain_it({"S1": np.arange(20) % 4}, 4, SHAPES, width=16, heads=2, depth=1)
    for part in net.networks:
        for head in part.transformer.heads:
            torch.nn.init.normal_(head.weight)
    betas = torch.randn(2, 20)
    maps = net(betas, "S1")[1].transpose(1, 2).reshape(2, 2, 4, 4)
    torch.testing.assert_close(net.forward_flat(betas, "S1")[:, 15:47].reshape(2, 2, 4, 4), maps)


def test_published_size() -> None:
    """About 35.2 M shared parameters in the semantic network."""
    with torch.device("meta"):
        net = brain_it({}, 128, [(256, 1664)], width=512, heads=8, depth=5)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(35.2, abs=0.6)
