"""The cross-transformer against its description, written out in numpy: order, norms, scales, residuals."""

from __future__ import annotations

from math import erf

import numpy as np
import torch

from brainit.network.transformer import Attention, CrossTransformer

HEADS, WIDTH = 2, 6


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def linear(x: np.ndarray, layer: torch.nn.Linear) -> np.ndarray:
    return x @ array(layer.weight).T + (0 if layer.bias is None else array(layer.bias))


def normed(x: np.ndarray, layer: torch.nn.LayerNorm) -> np.ndarray:
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt(x.var(1, keepdims=True) + layer.eps) * array(layer.weight) + array(layer.bias)


def mlp(x: np.ndarray, layers: torch.nn.Sequential) -> np.ndarray:
    hidden = linear(x, layers[0])
    gelu = hidden * 0.5 * (1 + np.vectorize(erf)(hidden / np.sqrt(2)))
    return linear(gelu, layers[-1])


def attended(query: np.ndarray, source: np.ndarray, layer: Attention) -> np.ndarray:
    """Each head by itself, softmax of q . k / sqrt(width of a head)."""
    q = query if layer.to_q is None else linear(query, layer.to_q)
    both = linear(source, layer.to_kv)
    k, v, size = both[:, :WIDTH], both[:, WIDTH:], WIDTH // HEADS
    out = np.empty_like(query)
    for head in range(HEADS):
        own = slice(head * size, (head + 1) * size)
        weight = np.exp(q[:, own] @ k[:, own].T / np.sqrt(size))
        out[:, own] = weight / weight.sum(1, keepdims=True) @ v[:, own]
    return linear(out, layer.out)


def test_blocks_do_what_the_paper_says_in_its_order() -> None:
    """Cross 0, then self and cross in turn; queries are read raw, sources normed, y + MLP(LN(y)) is added."""
    torch.manual_seed(0)
    net = CrossTransformer([(3, 5), (4, 2)], width=WIDTH, heads=HEADS, depth=2, init_std=1.0).double().eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    tokens = torch.randn(1, 7, WIDTH, dtype=torch.float64)
    brain, stream = array(tokens[0]), np.concatenate([array(q) for q in net.queries])
    for number, cross in enumerate(net.cross_blocks):
        if number:
            block = net.self_blocks[number - 1]
            inner = normed(brain, block.norm1)
            brain = brain + attended(inner, inner, block.attention)
            brain = brain + mlp(normed(brain, block.norm2), block.mlp)
        y = attended(stream, normed(brain, cross.norm_source), cross.attention)
        stream = stream + y + mlp(normed(y, cross.norm), cross.mlp)
    with torch.no_grad():
        first, second = net(tokens)
    np.testing.assert_allclose(array(first[0]), linear(stream[:3], net.heads[0]), rtol=1e-9)
    np.testing.assert_allclose(array(second[0]), linear(stream[3:], net.heads[1]), rtol=1e-9)


def test_embeddings_and_queries_begin_as_published() -> None:
    """All of them 0.1 / (2 sqrt(512)) times unit noise; no projection of a query in cross blocks."""
    from brainit.network.model import brain_it

    torch.manual_seed(0)
    net = brain_it({"S1": np.arange(400) % 64}, 64, [(32, 4), (2, 4, 4)], width=512, heads=8, depth=1)
    for part in net.networks:
        some = [part.tokenizer.clusters, part.tokenizer.voxels["S1"], part.transformer.queries[0]]
        for values in some:
            np.testing.assert_allclose(array(values).std(), 0.1 / (2 * np.sqrt(512)), rtol=0.05)
        assert all(block.attention.to_q is None for block in part.transformer.cross_blocks)
    np.testing.assert_allclose(array(net.log_temperature.exp()), 0.07, rtol=1e-6)
