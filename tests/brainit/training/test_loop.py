"""Training: determinism, resuming after a kill, rates and stopping, losses, batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from brainit.api import fit, override
from brainit.config import PRESETS, CareConfig, TrainConfig, parse_config
from brainit.errors import InputError
from brainit.network.losses import infonce, total_loss
from brainit.training.batches import Batch, LearningData, augment, batches, cut_flat, draw_keep
from brainit.training.loop import FINE, learning_rate
from brainit.training.stacking import combine, fit_weights


class Killed(Exception):
    """Stands for kill -9 between two epochs."""


def _same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parts, b.parts, strict=True))


def test_same_seed_same_bits_and_another_seed_not(sample, tiny_config) -> None:
    test = sample.subjects[0].part("test")
    one, two = (fit(sample.subjects, sample.table, tiny_config).predict(test) for _ in range(2))
    assert _same(one, two)
    other = fit(sample.subjects, sample.table, override(tiny_config, {"train": {"seed": 1}})).predict(test)
    assert not _same(one, other)


def test_the_global_generator_is_left_alone(sample, tiny_config) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(sample.subjects, sample.table, tiny_config)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kill_after", [1, 4])
def test_a_killed_run_ends_with_the_same_bits(pair, tiny_config, tmp_path: Path, kill_after: int) -> None:
    config = override(
        tiny_config, {"care": {"folds": 2, "mixup": 0.5, "beta_noise": 0.2, "voxel_dropout": 0.2}}
    )
    external = pair.table.targets
    whole = fit(pair.subjects, pair.table, config, external=external)

    def kill(done: int, total: int, what: str) -> None:
        if done > kill_after * FINE:  # in the middle of an epoch
            raise Killed

    with pytest.raises(Killed):
        fit(pair.subjects, pair.table, config, tmp_path, kill, external=external)
    seen: list[int] = []

    def see(done: int, total: int, what: str) -> None:
        if "validation loss" in what and "trained" not in what:
            seen.append(done)

    again = fit(pair.subjects, pair.table, config, tmp_path, see, external=external)
    assert min(seen) == kill_after * FINE  # it went on with the epoch that was not finished
    for a, b in zip(whole.networks, again.networks, strict=True):
        for key, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[key]), key
    assert whole.weights == again.weights
    assert not list(tmp_path.rglob("*.tmp"))


def test_finished_training_is_loaded_and_other_data_refused(sample, tiny_config, tmp_path: Path) -> None:
    first = fit(sample.subjects, sample.table, tiny_config, tmp_path)
    calls: list[int] = []
    second = fit(sample.subjects, sample.table, tiny_config, tmp_path, lambda d, t, w: calls.append(d))
    test = sample.subjects[0].part("test")
    assert not calls
    assert _same(first.predict(test), second.predict(test))
    with pytest.raises(InputError, match="other data or settings"):
        fit(sample.subjects, sample.table, override(tiny_config, {"train": {"seed": 9}}), tmp_path)


def test_rate_warms_up_and_falls_on_a_plateau() -> None:
    config = TrainConfig(lr=1.0, warmup_epochs=2, plateau=2)
    rates = [learning_rate(config, [3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0][:n]) for n in range(8)]
    assert rates[0] == pytest.approx(1e-3 + 0.999 / 8)
    assert rates[1:5] == [1.0] * 4
    assert rates[5:] == [0.1, 0.1, pytest.approx(0.01)]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_rate_falls_before_training_stops(preset: str) -> None:
    config = parse_config(preset=preset).train
    valid = [1 / (k + 1) for k in range(config.warmup_epochs + 2)] + [1.0] * config.patience
    rates = [learning_rate(config, valid[:n]) for n in range(len(valid))]
    assert rates[-1] < rates[config.warmup_epochs + 1] == config.lr


def test_early_stopping_keeps_the_best(sample, tiny_config) -> None:
    config = override(tiny_config, {"train": {"epochs": 40, "patience": 2, "lr": 0.05, "warmup_epochs": 0}})
    history = fit(sample.subjects, sample.table, config).report["training"][0]
    assert history["stopped"] == "patience"
    assert len(history["valid"]) == history["best_epoch"] + 3 < 40
    assert history["best_epoch"] == int(np.argmin(history["valid"]))


def test_network_learns(sample, tiny_config) -> None:
    values = {
        "train": {"epochs": 60, "patience": 60, "plateau": 60, "lr": 5e-3},
        "care": {"residual_on_ridge": False},
    }
    history = fit(sample.subjects, sample.table, override(tiny_config, values)).report["training"][0]
    assert history["train"][-1] < 0.6 * history["train"][0]


def test_infonce_is_least_for_the_right_pairs() -> None:
    torch.manual_seed(0)
    target, temperature = torch.randn(3, 4, 8), torch.tensor(-2.66)
    right = infonce(3 * target, target, temperature)  # the length does not matter
    wrong = infonce(target.roll(1, 1), target, temperature)
    assert right < 0.1 < wrong
    assert infonce(torch.randn(64, 4, 8), torch.randn(64, 4, 8), torch.tensor(0.0)) == pytest.approx(
        np.log(256), abs=0.2
    )


def test_infonce_is_the_symmetric_cross_entropy_of_cosines() -> None:
    rng = np.random.default_rng(0)
    p, t = rng.standard_normal((2, 2, 3, 5))
    a, b = (x.reshape(6, 5) / np.linalg.norm(x.reshape(6, 5), axis=1, keepdims=True) for x in (p, t))
    likely = np.exp(a @ b.T / 0.07)
    rows, columns = (np.log(np.diag(likely) / likely.sum(axis)).mean() for axis in (1, 0))
    found = infonce(torch.from_numpy(p), torch.from_numpy(t), torch.tensor(np.log(0.07)))
    assert float(found) == pytest.approx(-(rows + columns) / 2)


@pytest.mark.parametrize("how", ["mse", "infonce", "infonce+mse"])
def test_total_loss_adds_tokens_and_the_mean_over_scales(how: str) -> None:
    torch.manual_seed(0)
    shapes = [(2, 3, 5), (2, 4, 6), (2, 2, 3)]
    p, t = ([torch.randn(shape) for shape in shapes] for _ in range(2))
    temperature = torch.tensor([-1.0, -2.0])
    mse = [float(((a - b) ** 2).mean()) for a, b in zip(p, t, strict=True)]
    contrast = [float(infonce(p[k + 1], t[k + 1], temperature[k])) for k in range(2)]
    scales = {
        "mse": mse[1:],
        "infonce": contrast,
        "infonce+mse": [c + 0.75 * m for c, m in zip(contrast, mse[1:], strict=True)],
    }[how]
    got = total_loss(p, t, temperature, structure_loss=how, structure_weight=0.5)
    assert float(got) == pytest.approx(mse[0] + 0.5 * np.mean(scales), rel=1e-5)


def test_an_epoch_visits_every_trial_once() -> None:
    own = Batch("S1", torch.arange(23.0)[:, None], torch.zeros(23, 1))
    data = LearningData({"S1": own, "S2": own}, {})
    seen = list(batches(data, TrainConfig(batch=5), CareConfig(), np.random.default_rng(0)))
    for name in ("S1", "S2"):
        rows = torch.cat([b.betas[:, 0] for b in seen if b.subject == name])
        assert sorted(rows.tolist()) == list(range(23))


def test_three_of_four_trials_are_synthetic_where_there_are_any() -> None:
    class Made:
        def draw(self, n: int, subject: str, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.full((n, 1), -1.0), torch.zeros(n, 1)

    own = Batch("S1", torch.arange(23.0)[:, None], torch.zeros(23, 1))
    data = LearningData({"S1": own}, {}, synthetic=Made())
    seen = list(batches(data, TrainConfig(batch=8), CareConfig(), np.random.default_rng(0)))
    assert [int((b.betas < 0).sum()) for b in seen] == [6] * 12
    assert sorted(x for b in seen for x in b.betas[b.betas >= 0].tolist()) == list(range(23))


def test_mixup_blends_betas_and_targets_alike() -> None:
    x = torch.randn(6, 4)
    mixed = augment(Batch("S1", x, 2 * x, 3 * x), CareConfig(mixup=1.0), torch.Generator().manual_seed(0))
    assert not torch.equal(mixed.betas, x)
    torch.testing.assert_close(mixed.target, 2 * mixed.betas)
    torch.testing.assert_close(mixed.base, 3 * mixed.betas)


def test_noise_is_added_to_betas_and_voxels_are_hidden_as_configured() -> None:
    batch, draw = Batch("S1", torch.zeros(200, 50), torch.zeros(200, 2)), torch.Generator().manual_seed(0)
    care = CareConfig(beta_noise=0.5, voxel_dropout=0.2)
    noisy = augment(batch, care, draw)
    assert float(noisy.betas.std()) == pytest.approx(0.5, rel=0.03)
    assert torch.equal(noisy.target, batch.target)
    kept = draw_keep(batch, TrainConfig(voxel_draws=0), care, draw)
    assert float(kept.float().mean()) == pytest.approx(0.8, abs=0.02)
    drawn = draw_keep(batch, TrainConfig(voxel_draws=50), care, draw)
    assert float(drawn.float().mean()) == pytest.approx(0.8 * (1 - (1 - 1 / 50) ** 50), abs=0.02)


def test_cut_flat_takes_positions_row_major() -> None:
    flat = torch.arange(2 * (6 + 12.0)).view(2, 18)
    tokens, maps = cut_flat(flat, [(2, 3), (3, 2, 2)], [torch.tensor([3, 0])])
    assert tokens.shape == (2, 2, 3)
    assert torch.equal(maps, flat[:, 6:].view(2, 3, 4)[:, :, [3, 0]].transpose(1, 2))


def test_stacking_finds_the_weights() -> None:
    torch.manual_seed(0)
    ridge, network = torch.randn(200, 4), torch.randn(200, 4)
    groups = {"a": torch.arange(2), "b": torch.arange(2, 4)}
    target = torch.cat([0.7 * ridge[:, :2] + 0.2 * network[:, :2], 0.5 * ridge[:, 2:] - network[:, 2:]], 1)
    weights = fit_weights(groups, target, network, ridge, residual=False, how="stack")
    assert weights["a"] == (pytest.approx(0.7, abs=1e-6), pytest.approx(0.2, abs=1e-6))
    assert weights["b"][1] == 0  # never negative
    torch.testing.assert_close(combine(groups, weights, network, ridge)[:, :2], target[:, :2])
    shrunk = fit_weights(groups, ridge + 0.3 * network, network, ridge, residual=True, how="shrink")
    assert shrunk["a"] == (1.0, pytest.approx(0.3, abs=1e-6))
    none = fit_weights(groups, torch.zeros(200, 4), torch.zeros(200, 4), ridge, residual=False, how="stack")
    assert none == {"a": (0.0, 0.0), "b": (0.0, 0.0)}


def test_held_out_predictions_are_kept_and_come_back_from_disk(pair, tiny_config, tmp_path: Path) -> None:
    config = override(tiny_config, {"care": {"calibrate": "stack", "folds": 2}})
    decoder = fit(pair.subjects, pair.table, config, tmp_path)
    again = fit(pair.subjects, pair.table, config, tmp_path)
    for subject in pair.subjects:
        stimuli, predicted = decoder.held_out(subject.name)
        assert sorted(stimuli) == sorted(subject.part("train").stimulus_id)  # two folds cover all
        same, from_disk = again.held_out(subject.name)
        assert list(same) == list(stimuli)
        assert torch.equal(predicted.flat(), from_disk.flat())
        truth = decoder.target_scaler.apply(pair.table.take(stimuli))
        error = ((decoder.target_scaler.apply(predicted) - truth) ** 2).mean()
        seen = decoder.predict(subject.part("train"))
        order = {key: row for row, key in enumerate(subject.part("train").stimulus_id)}
        inside = decoder.target_scaler.apply(seen)[[order[key] for key in stimuli]]
        assert error > ((inside - truth) ** 2).mean()  # left out is harder than seen
    with pytest.raises(InputError, match="S9"):
        decoder.held_out("S9")
