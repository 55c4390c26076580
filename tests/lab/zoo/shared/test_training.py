"""The shared network learns from people read from few trials, on pictures they were not read from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lab.zoo.people import Seen
from lab.zoo.shared import pupils, training

SIZES = {
    "n_components": 10,
    "n_clusters": 4,
    "width": 16,
    "heads": 2,
    "depth": 1,
    "n_tokens": 3,
    "token_width": 6,
}
N, TRAINED, SCANNED, VOXELS = 1500, 1200, 240, 50


@pytest.fixture(scope="module")
def crowd() -> tuple[list[torch.Tensor], Seen]:
    """Return people whose voxels are bent sums of what tokens are made of, nearly one of two values each."""
    draw = torch.Generator().manual_seed(0)
    hidden = (3 * torch.randn(N, 5, generator=draw)).tanh() * 2
    tokens = hidden @ torch.randn(5, 18, generator=draw) + 0.1 * torch.randn(N, 18, generator=draw)
    answered = []
    for _ in range(2):
        drive = hidden[:, :3] @ torch.randn(3, VOXELS, generator=draw)
        bent = torch.nn.functional.softplus(2 * drive)
        answered.append((bent - bent.mean(0)) / bent.std(0))
    return answered, Seen(torch.zeros(N, 1), torch.zeros(N, 2), tokens, SCANNED)


def started(crowd: tuple[list[torch.Tensor], Seen]) -> tuple[object, list[pupils.Pupil]]:
    answered, seen = crowd
    network = pupils.begin(answered, seen, 0, **SIZES)
    return network, pupils.pupils(network, answered, seen, 0, ceilings=(0.3, 0.6), trials=(60, 100))


def test_batches_hold_no_picture_that_the_person_was_read_from(
    crowd: tuple[list[torch.Tensor], Seen],
) -> None:
    _, group = started(crowd)
    prepare = training.fresh_trials(group, crowd[1], latents=False)
    for step in range(20):
        torch.manual_seed(step)
        voxels, x, base, goal, latents = prepare(torch.randint(2**30, (64,)))
        pupil = next(p for p in group if p.voxels is voxels)
        known = {tuple(row.tolist()) for row in crowd[1].tokens[pupil.scanned]}
        assert not known & {tuple(row.tolist()) for row in goal}
        assert x.shape == (64, VOXELS) and base is None and latents is None


def test_stage_1_corrects_the_read_out_on_pictures_it_never_saw(
    crowd: tuple[list[torch.Tensor], Seen], tmp_path: Path
) -> None:
    answered, seen = crowd
    few = Seen(seen.images, seen.latents, seen.tokens[:TRAINED], SCANNED)
    shown = ([a[:TRAINED] for a in answered], few)
    network, group = started(shown)
    recipe = replace(training.TOKENS, steps=150, batch=64, lr=3e-3, warmup=10)
    prepare = training.fresh_trials(group, few, latents=False)
    training.train_tokens(network, prepare, 2**20, tmp_path / "state.safetensors", recipe, seed=0)
    fresh = torch.arange(TRAINED, N)
    before, after = [], []
    for person, pupil in zip((0, 0, 1, 1), group, strict=True):
        scanner = pupils.Scanner(answered[person], 0.5, 5)
        x = (scanner.look(fresh, 3, torch.Generator().manual_seed(1)) - pupil.mean) / pupil.scale
        with torch.no_grad():
            for found, out in ((network.base(x, pupil.voxels), before), (network(x, pupil.voxels), after)):
                out.append(float((found.flatten(1) - seen.tokens[fresh]).square().mean()))
    assert sum(after) < 0.99 * sum(before)
