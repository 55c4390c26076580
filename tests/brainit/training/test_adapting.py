"""A newcomer: read in closed form, weighed on left-out trials, kept in a small file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from brainit.errors import InputError
from brainit.io import read_state, write_state
from brainit.network.shared import SharedNetwork
from brainit.subject import Subject
from brainit.training.adapting import AdaptedSubject, adapt
from brainit.training.newcomer import read
from brainit.training.targets import Targets, TargetTable
from brainit.voxels.ridge import fit_ridge
from brainit.voxels.tuning import TokenSpace

N, TEST, VOXELS, SHAPE = 60, 40, 70, (4, 5)
SIZES = {
    "n_components": 8,
    "n_clusters": 3,
    "width": 8,
    "heads": 2,
    "depth": 1,
    "n_tokens": 4,
    "token_width": 5,
}


def world() -> tuple[SharedNetwork, Subject, TargetTable]:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((N + TEST, 8))
    tokens = (points @ rng.standard_normal((8, 20)) * 0.5).astype(np.float32)
    betas = points[:, :3] @ rng.standard_normal((3, VOXELS)) + 2 * rng.standard_normal((N + TEST, VOXELS))
    split = np.where(np.arange(N + TEST) < N, "train", "test")
    ids = np.array([f"p{k}" for k in range(N + TEST)])
    zero = np.zeros(N + TEST, int)
    subject = Subject(
        "toy", "new", True, (betas * 3 + 7).astype(np.float32), np.zeros((VOXELS, 3), np.float32), ids, zero,
        zero, zero, split,
    )  # fmt: skip
    torch.manual_seed(0)
    net = SharedNetwork(**SIZES)
    space = TokenSpace.fit(torch.from_numpy(tokens), 8)
    known = points[:, :3] @ np.linalg.pinv(points[:, :3]) @ space.points(torch.from_numpy(tokens)).numpy()
    prior = torch.from_numpy(np.cov(known.T)).float()
    net.know(space, prior * 8 / prior.trace(), torch.nn.functional.normalize(torch.randn(3, 8), dim=1))
    return net, subject, TargetTable(list(ids), Targets(torch.from_numpy(tokens).view(-1, *SHAPE), []))


def error(found: torch.Tensor, table: TargetTable) -> float:
    return float((found - table.targets.tokens[N:]).square().mean())


def test_the_read_out_beats_ridge_where_others_know_what_voxels_say() -> None:
    net, subject, table = world()
    found, test = adapt(net, subject, table), subject.part("test")
    fitted = fit_ridge(found.scaler.apply(subject.betas[:N]), table.targets.tokens[:N].flatten(1).numpy())
    ridge = torch.from_numpy(fitted.predict(found.scaler.apply(test.betas))).view(-1, *SHAPE)
    with torch.no_grad():
        read_out = net.base(torch.from_numpy(found.scaler.apply(test.betas)), found.voxels)
    assert error(read_out, table) < error(ridge, table)
    assert error(found.predict_bayes(test).tokens, table) < error(ridge, table)


def test_left_out_predictions_did_not_see_their_trial() -> None:
    net, subject, table = world()
    train = subject.part("train")
    tokens = table.targets.tokens[:N].flatten(1)
    betas = torch.from_numpy((train.betas - train.betas.mean(0)) / train.betas.std(0))
    once = read(betas, tokens, net.space, net.prior)
    changed = tokens.clone()
    changed[5] += 100
    again = read(betas, changed, net.space, net.prior)
    shift = again.offset - once.offset
    # its own fold was fitted on the others; only the common offset and the weights have moved
    assert (again.left_out[5] - shift - once.left_out[5]).abs().max() < 0.2 * shift.abs().max() * N


def test_training_embeddings_never_ends_worse_on_left_out_trials() -> None:
    net, subject, table = world()
    net.transformer.heads[0].weight.data.normal_(std=0.05)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    facts = adapt(net, subject, table, epochs=6, lr=1e-2).report["embeddings"]
    assert facts["left_out_error"] <= facts["left_out_error_before"]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())


def test_the_file_gives_the_same_predictions(tmp_path: Path) -> None:
    net, subject, table = world()
    net.transformer.heads[0].weight.data.normal_(std=0.05)
    found, test = adapt(net, subject, table, epochs=2), subject.part("test")
    again = AdaptedSubject.load(found.save(tmp_path).parent, net)
    assert torch.allclose(again.predict(test).tokens, found.predict(test).tokens, atol=0.02)
    assert list(again.held_out("new")[0]) == list(found.held_out("new")[0])
    with pytest.raises(InputError, match="not 'old'"):
        again.predict(replace(test, name="old"))


def test_files_of_other_versions_and_networks_are_refused(tmp_path: Path) -> None:
    net, subject, table = world()
    path = adapt(net, subject, table).save(tmp_path)
    with pytest.raises(InputError, match="other sizes"):
        AdaptedSubject.load(path, SharedNetwork(**(SIZES | {"width": 16})))
    tensors, header = read_state(path)
    write_state(path, tensors, header | {"format": 99})
    with pytest.raises(InputError, match="format 99"):
        AdaptedSubject.load(path, net)


def test_too_few_trials_and_other_tokens_are_refused() -> None:
    net, subject, table = world()
    few = subject.select(np.r_[0:10, N : N + TEST])
    with pytest.raises(InputError, match="10 trials are too few"):
        adapt(net, few, table)
    other = TargetTable(table.ids, Targets(table.targets.tokens[:, :3], []))
    with pytest.raises(InputError, match="tokens of shape"):
        adapt(net, subject, other)
