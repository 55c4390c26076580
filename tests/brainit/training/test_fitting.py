"""What a network is given to learn from: nothing of the trials that it leaves out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from brainit.api import fit, override
from brainit.training import fitting
from brainit.training.grouping import train_encoder
from brainit.training.loop import History
from brainit.training.trials import prepare
from brainit.voxels.ridge import fit_ridge_loo


def test_a_fold_learns_nothing_of_what_it_leaves_out(pair, tiny_config, monkeypatch) -> None:
    """Trials, ridge under the residual, and the encoder of synthetic fMRI are those of the others alone."""
    given = []

    def keep(net, data, *_, **__) -> History:
        given.append(data)
        return History([0.0], [0.0], 0)

    monkeypatch.setattr(fitting, "train_network", keep)
    values = {"folds": 2, "residual_on_ridge": True, "synthetic_share": 0.5}
    config = override(tiny_config, {"care": values, "model": {"functional_init": True}})
    decoder = fit(pair.subjects, pair.table, config, external=pair.table.targets)
    trials, flat = prepare(pair.subjects, pair.table), decoder.target_scaler.apply(pair.table.targets)
    parts = [index.numpy() for index in decoder.target_scaler.groups.values()]
    for data in given:
        kept = {}
        for name, whole in trials.items():
            inside, out = (getattr(data, s)[name].betas.numpy() for s in ("train", "valid"))
            rows = [[r.tobytes() for r in x] for x in (whole.betas, inside, out)]
            assert sorted(rows[1] + rows[2]) == sorted(rows[0]) and not set(rows[1]) & set(rows[2])
            chosen = np.array([r in rows[1] for r in rows[0]])
            kept[name] = replace(
                whole, betas=whole.betas[chosen], rows=whole.rows[chosen], group=whole.group[chosen]
            )
            torch.testing.assert_close(data.train[name].target, flat[kept[name].rows])
            ridge, left_out = fit_ridge_loo(inside, flat[kept[name].rows].numpy(), groups=parts)
            np.testing.assert_array_equal(data.train[name].base, left_out)
            np.testing.assert_array_equal(data.valid[name].base, ridge.predict(out))
        alone = train_encoder(config, kept, flat.numpy(), flat.numpy())
        for name, own in alone.embeddings.items():
            np.testing.assert_array_equal(data.synthetic.encoder.embeddings[name], own)
    shown = [set(data.valid["S1"].betas.numpy()[:, 0].tolist()) for data in given]
    assert not shown[0] & shown[1]


def test_held_out_pictures_stand_beside_what_was_said_of_them(pair, tiny_config, monkeypatch) -> None:
    """Ridge alone, stacked: each held-out prediction is that of a ridge without its fold, for its picture."""
    monkeypatch.setattr(fitting, "train_network", lambda *_, **__: History([0.0], [0.0], 0))
    config = override(tiny_config, {"care": {"folds": 2, "calibrate": "stack"}})
    decoder = fit(pair.subjects[:1], pair.table, config)  # an untrained network says 0
    (own,), flat = (
        prepare(pair.subjects[:1], pair.table).values(),
        decoder.target_scaler.apply(pair.table.targets),
    )
    stimuli, predicted = decoder.held_out("S1")
    found = decoder.target_scaler.apply(predicted)
    where = {key: k for k, key in enumerate(own.group)}
    rows = np.array([where[key] for key in stimuli])
    halves = np.array_split(rows, 2)
    for half, other, said in zip(halves, halves[::-1], found.tensor_split(2), strict=True):
        for part, index in decoder.target_scaler.groups.items():
            columns = index.numpy()
            ridge, _ = fit_ridge_loo(
                own.betas[np.sort(other)], flat[own.rows[np.sort(other)]][:, columns].numpy()
            )
            expected = decoder.weights[part][0] * ridge.predict(own.betas[half])
            np.testing.assert_allclose(said[:, columns], expected, atol=0.02)  # kept in half precision
