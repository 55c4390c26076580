"""The network that all subjects share: untrained it is the read-out; it knows subjects by tuning alone."""

from __future__ import annotations

import torch

from brainit.network.shared import SharedNetwork, Voxels

SIZES = {
    "n_components": 6,
    "n_clusters": 3,
    "width": 8,
    "heads": 2,
    "depth": 1,
    "n_tokens": 4,
    "token_width": 5,
}


def voxels(n: int, seed: int) -> Voxels:
    draw = torch.Generator().manual_seed(seed)
    evidence, readout = torch.randn(2, n, 6, generator=draw)
    return Voxels.of(evidence, torch.arange(n) % 3, 3, readout, torch.randn(6, generator=draw))


def network() -> SharedNetwork:
    torch.manual_seed(0)
    net = SharedNetwork(**SIZES)
    net.back.normal_()
    net.mean.normal_()
    return net


def test_untrained_it_is_the_read_out() -> None:
    net, own = network(), voxels(30, 1)
    x = torch.randn(7, 30)
    expected = net.mean + (x @ own.readout + own.offset) @ net.back
    assert torch.allclose(net(x, own).flatten(1), expected, atol=1e-5)


def test_one_network_takes_subjects_of_any_number_of_voxels_in_any_order() -> None:
    net, own = network(), voxels(30, 1)
    net.transformer.heads[0].weight.data.normal_()
    x = torch.randn(7, 30)
    order = torch.randperm(30)
    labels = (torch.arange(30) % 3)[order]
    turned = Voxels.of(own.evidence[order], labels, 3, own.readout[order], own.offset)
    assert torch.allclose(net(x, own), net(x[:, order], turned), atol=1e-4)
    assert net(torch.randn(2, 11), voxels(11, 2)).shape == (2, 4, 5)


def test_gradients_reach_what_is_shared() -> None:
    net = network()
    net.transformer.heads[0].weight.data.normal_()
    net(torch.randn(3, 30), voxels(30, 1)).square().sum().backward()
    shared = (net.embed, net.place, net.tokenizer.clusters, net.read.weight)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in shared)


def test_attention_is_the_clusters_share_times_the_voxels_within() -> None:
    net, own = network(), voxels(30, 1)
    x = torch.randn(7, 30)
    share = net.attention_map(x, own, 2)
    assert share.shape == (7, 30) and torch.allclose(share.sum(1), torch.ones(7), atol=1e-5)
    within = share.clone()
    for k in range(3):
        within[:, k::3] /= share[:, k::3].sum(1, keepdim=True)
    alpha = net.tokenizer.attention_of(x, net.embeddings(own), own.table)
    assert torch.allclose(within, alpha, atol=1e-5)
    assert not torch.allclose(share, net.attention_map(x, own, 3))
