"""The numbers of a card, from models whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lab.errors import InputError
from lab.metrics.distances import frechet_distance
from lab.progress import silent
from lab.zoo import evaluate, evaluate_predicted
from lab.zoo.data import Pictures
from lab.zoo.shared import evaluate as shared_evaluate
from lab.zoo.video import evaluate as clips_evaluate

RANDOM = torch.Generator().manual_seed(0)


class Knows(nn.Module):
    """A denoiser whose condition is the clean latent: the way is straight, so its velocity is exact."""

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states, return_dict):
        x0 = encoder_hidden_states.view_as(x)
        s = (timestep / 1000).view(-1, *[1] * (x.ndim - 1))
        return ((x - x0) / s,)


@pytest.mark.parametrize(
    ("measure", "shape"),
    [(evaluate._velocity_loss, (8, 4, 4)), (clips_evaluate._velocity_loss, (8, 3, 4, 4))],
)
def test_velocity_error_is_none_where_the_clean_latent_is_known(measure, shape: tuple[int, ...]) -> None:
    x0 = torch.randn(70, *shape, generator=RANDOM)
    assert measure(Knows(), x0, x0.flatten(1), 3) < 1e-8
    # halfway wrong about it: half the difference over s, whose mean square is known for each of the ten times
    found = measure(Knows(), x0, x0.flatten(1) + 1, 3)
    assert found == pytest.approx(np.mean(1 / np.linspace(0.05, 0.95, 10) ** 2), rel=1e-4)


class Looks(nn.Module):
    """An encoder whose global token is a picture's first row, and whose labels are its places."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)[:, None, 0, :]

    def classify(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 0] * 10


def test_labels_and_neighbours_of_an_encoder() -> None:
    """Pictures are rows: two like each other, the first one's mirror image, and one alone."""
    rows = [[9, 1, 0, 0, 0, 0, 0], [9, 2, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 9], [1, 2, 3, 9, 5, 6, 7]]
    images = (torch.tensor(rows) * 20).to(torch.uint8)[:, None, None].expand(-1, 3, 1, -1)
    natural = Pictures(images, torch.tensor([0, 1, 6, 0]))
    found = evaluate._encoder(Looks(), {"natural": natural}, silent).quality
    assert found["natural.n"] == 4
    assert found["natural.top1"] == 0.5  # the first and the third
    assert found["natural.top5"] == 0.75  # also the second, not the last: first of its places is the least
    # of the first two the other is nearest, the last is the third one's and the third the last one's
    assert found["natural.nearest_has_same_class"] == 0.0
    # a mirror image: the first finds the third, the third the first, the second the third, the last itself
    assert found["natural.mirror_retrieval_top1"] == 0.25


def test_the_null_of_a_set_distance_is_of_other_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    made, images, others = (torch.rand(9, 2, generator=RANDOM) + shift for shift in (0.0, 1.0, 5.0))
    monkeypatch.setattr(evaluate, "pooled_features", lambda network, x, tap: x.double().numpy())
    found = evaluate._distances(None, made, images, others)
    name = f"natural.FD({evaluate.NETWORK}, 112)"
    a, b, c = (x.double().numpy() for x in (made, images, others))
    assert found[name] == pytest.approx(frechet_distance(a, b), rel=1e-3)
    assert found[f"{name}, null: other held-out pictures"] == pytest.approx(frechet_distance(b, c), rel=1e-3)


def test_too_many_for_the_null_are_refused_before_anything_is_drawn(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "_denoiser", lambda *given: pytest.fail("drawn"))
    with pytest.raises(InputError, match=r"--n 7: 12 natural .* give at most 6"):
        evaluate.evaluate("dit-64", data, n=7, n_simple=2)


def test_scores_of_predicted_tokens_by_hand() -> None:
    """Correlation of each number over pictures; a difference is ours less theirs, picture by picture."""
    true = torch.randn(30, 6, generator=RANDOM)
    tokens = true + torch.arange(6) * torch.randn(30, 6, generator=RANDOM) + 5
    wanted = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(tokens.T.numpy(), true.T.numpy(), strict=True)])
    assert evaluate_predicted._token_r(tokens, true) == pytest.approx(wanted, abs=1e-4)
    theirs = np.random.default_rng(0).normal(0, 9, 50)
    ours = theirs + np.random.default_rng(1).normal(1, 0.1, 50)
    (mean, low, high) = shared_evaluate.above({"two_way": ours}, {"two_way": theirs})["two_way"]
    assert mean == pytest.approx((ours - theirs).mean(), abs=1e-4) and 0.9 < low < mean < high < 1.1
    row = {"person": "mixtures", "ceiling": 0.1, "now, guidance 3": {"two_way": [0.95, 0.9, 1.0]}}
    found = evaluate_predicted._targets(
        {"readings": [row], "true_tokens": {"now": {"two_way": [1.0], "pixcorr": [0.8]}}}
    )
    assert {k: (goal["reached"], goal["met"]) for k, goal in found.items()} == {
        "two_way, mixtures at 0.1, guidance 3": (0.95, False),
        "two_way, true tokens": (1.0, True),
        "pixcorr, true tokens": (0.8, True),
    }
