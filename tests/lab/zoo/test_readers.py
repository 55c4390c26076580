from __future__ import annotations

import pytest
import torch

from lab.zoo.readers import Condition, Reader, _ridge

N, VOXELS, GOALS = 400, 60, 5


def made(ceiling: float = 0.5, share: float = 1.0, n_scanned: int = 300) -> tuple[Reader, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randn(N, GOALS, generator=draw)
    answers = tokens @ torch.randn(GOALS, VOXELS, generator=draw) / GOALS**0.5
    answers[:, -5:] = 0
    return Reader(answers, tokens, Condition(ceiling, share), n_scanned, seed=1), tokens


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_repeats_and_ceilings_make_readings_better() -> None:
    index = torch.arange(300, N)
    found = []
    for ceiling, repeats in ((0.05, 1), (0.05, 3), (0.5, 3)):
        reader, tokens = made(ceiling)
        torch.manual_seed(0)
        found.append(correlation(reader.predict(index, repeats), tokens[index]))
    assert found[0] < found[1] < found[2] and found[2] > 0.9


def test_the_noise_has_the_stated_ceiling() -> None:
    reader, _ = made(0.3)
    index = torch.zeros(4000, dtype=torch.long)
    noise = reader.look(index, 1).var(0)
    torch.testing.assert_close(noise, 1 - reader.ceiling, rtol=0.15, atol=0.02)
    assert (reader.ceiling[-5:] == 0).all() and 0.2 < float(reader.ceiling[:-5].mean()) < 0.4
    torch.testing.assert_close(reader.look(index, 3).var(0), noise / 3, rtol=0.2, atol=0.02)


def test_a_scanned_picture_is_read_by_the_half_without_it() -> None:
    reader, _ = made()
    index = torch.tensor([10, 11, 350])
    torch.manual_seed(3)
    found = reader.predict(index, 1)
    torch.manual_seed(3)
    voxels = reader.look(index, 1)
    even, odd = reader.halves
    wanted = torch.stack([odd(voxels)[0], even(voxels)[1], reader.whole(voxels)[2]])
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("n", [30, 200])
def test_both_forms_of_ridge_agree_with_the_normal_equations(n: int) -> None:
    draw = torch.Generator().manual_seed(2)
    x, y = torch.randn(n, 50, generator=draw), torch.randn(n, 3, generator=draw)
    fit = _ridge(x, y, 7.0)
    z = ((x - x.mean(0)) / (x.std(0) + 1e-6)).double()
    wanted = torch.linalg.solve(z.T @ z + 7 * torch.eye(50).double(), z.T @ (y - y.mean(0)).double())
    torch.testing.assert_close(fit.weights.double(), wanted, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(fit(x).mean(0), y.mean(0), rtol=1e-3, atol=1e-4)


def test_fewer_trials_read_worse() -> None:
    index = torch.arange(300, N)
    found = []
    for share in (0.05, 1.0):
        reader, tokens = made(0.3, share)
        torch.manual_seed(0)
        found.append(correlation(reader.predict(index, 3), tokens[index]))
    assert found[0] < found[1]
