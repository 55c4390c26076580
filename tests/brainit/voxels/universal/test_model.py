"""The encoder against its description, voxel by voxel in numpy; its loss, rates and published settings."""

from __future__ import annotations

from dataclasses import replace
from math import erf

import numpy as np
import pytest
import torch

from brainit.voxels.universal import EncoderConfig, UniversalEncoder, collect, fit_universal, loop


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def linear(x: np.ndarray, layer: torch.nn.Linear) -> np.ndarray:
    return x @ array(layer.weight).T + (0 if layer.bias is None else array(layer.bias))


def normed(x: np.ndarray, layer: torch.nn.LayerNorm) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + layer.eps) * array(layer.weight) + array(layer.bias)


def test_a_voxel_looks_and_reads_as_published() -> None:
    """No division by a root, features are the values; norm, then + MLP; taps side by side, times e F."""
    torch.manual_seed(0)
    config = EncoderConfig(taps=(1, 2), features=4, embedding=5, bypass_rank=0)
    encoder = UniversalEncoder(6, 3, 2, config)
    encoder.add_subject("S1", 2)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter)
    encoder.double().eval()
    taps = [torch.randn(1, 3, 6, dtype=torch.float64) for _ in range(2)]
    found = array(encoder(taps, "S1")[0])
    for e, response in zip(array(encoder.table("S1")), found, strict=True):
        read = []
        for tokens, reader in zip(taps, encoder.readers, strict=True):
            features = np.stack([linear(normed(t, reader.norm), reader.feature) for t in array(tokens[0])])
            keys = linear(features, reader.key) + array(reader.position)
            weight = np.exp(keys @ linear(e, reader.query))
            inner = normed(weight / weight.sum() @ features, reader.out_norm)
            hidden = linear(inner, reader.mlp[0])
            read.append(
                inner + linear(hidden * 0.5 * (1 + np.vectorize(erf)(hidden / 2**0.5)), reader.mlp[2])
            )
        assert response == pytest.approx(np.concatenate(read) @ (e @ array(encoder.readout)), rel=1e-9)


def test_bypass_adds_a_low_rank_of_the_stream_times_alpha_over_rank() -> None:
    encoder = UniversalEncoder(6, 3, 2, EncoderConfig(taps=(2,), bypass_rank=7, bypass_scale=0.01))
    layer, x = encoder.bypass[1], torch.randn(4, 6)
    assert len(encoder.bypass) == 2 and torch.count_nonzero(layer(x)) == 0  # as if it were not there
    torch.nn.init.normal_(layer.up.weight)
    torch.testing.assert_close(layer(x), 0.01 / 7 * x @ layer.down.weight.T @ layer.up.weight.T)


def test_loss_is_squared_error_less_a_tenth_of_the_cosine_over_voxels() -> None:
    p, t = np.random.default_rng(0).standard_normal((2, 3, 5))
    cosine = (p * t).sum(1) / np.linalg.norm(p, axis=1) / np.linalg.norm(t, axis=1)
    found = loop.encoder_loss(torch.from_numpy(p), torch.from_numpy(t), 0.1)
    assert float(found) == pytest.approx(((p - t) ** 2).mean() - 0.1 * cosine.mean())


def test_rate_falls_after_more_than_four_epochs_without_a_better_score() -> None:
    config = EncoderConfig()
    scores = [0.1, 0.3, *[0.2] * 12]
    rates = [loop.learning_rate(config, scores[:n]) for n in range(15)]
    assert rates[:7] == [1e-3] * 7 and rates[7:12] == [pytest.approx(1e-4)] * 5
    assert rates[12:] == [pytest.approx(1e-5)] * 3


def test_defaults_are_the_published_ones() -> None:
    found = EncoderConfig().model_dump()
    published = {
        "taps": (1, 6, 12, 18, 24), "bypass_rank": 7, "bypass_scale": 0.01, "features": 128, "embedding": 256,
        "dropout": 0.25, "cosine": 0.1, "voxel_draws": 5000, "shift": 3, "lr": 1e-3, "batch": 32,
        "epochs": 30, "plateau": 4,
    }  # fmt: skip
    assert {key: found[key] for key in published} == published and loop.QUANTILE == 0.75
    encoder = UniversalEncoder(8, 3, 0, EncoderConfig(taps=(0,)))
    encoder.add_subject("S1", 400)
    assert float(encoder.table("S1").detach().std()) == pytest.approx(0.1 / (2 * 16), rel=0.02)


def test_held_out_pictures_are_not_learned_from_and_repeats_are_averaged(few) -> None:
    """What is said of held-out pictures decides which epoch is kept, and nothing else."""
    twice = [replace(s, stimulus_id=np.repeat(s.stimulus_id[::2], 2)) for s in few.subjects]
    trials, ids = collect(twice)
    own = twice[0].betas[:24].reshape(12, 2, -1).mean(1)
    np.testing.assert_allclose(trials["S1.x"].betas, (own - own.mean(0)) / own.std(0), atol=1e-5)
    config = few.config.model_copy(update={"epochs": 1, "validation": 0.25})
    pictures, fitted = few.pictures(ids), []
    for change in (0.0, 9.0):
        held = np.isin(trials["S1.x"].rows, loop_held(trials, config))
        other = {
            n: replace(t, betas=t.betas + change * held[:, None].astype(np.float32))
            for n, t in trials.items()
        }
        fitted.append(fit_universal(few.backbone, pictures, other, config).encoder.state_dict())
    assert all(torch.equal(value, fitted[1][name]) for name, value in fitted[0].items())


def loop_held(trials, config) -> np.ndarray:
    from brainit.voxels.universal.data import held_pictures

    held = held_pictures(trials, config)
    assert len(held) == 3
    return held
