"""A recording is repeated bit by bit with the model that made it."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDIMScheduler

import quant
from quant.recordings.repeat import Sampler
from quant.recordings.sampling import generators

CONDITIONS = torch.randn(5, 5, 24, generator=torch.Generator().manual_seed(0))
NULL = torch.zeros(5, 24)


def test_a_recording_is_repeated_and_its_bytes_stay(tiny, tmp_path: Path) -> None:
    model = tiny.build("unet")
    options = {"n_steps": 3, "guidance": 2.0, "null_condition": NULL, "seed": 5, "batch_size": 5}
    store = quant.record(model, DDIMScheduler(), CONDITIONS, tmp_path / "a", **options)
    inputs, final = Sampler(store, DDIMScheduler(), NULL).run(model, list(range(5)))
    for key in range(5):
        assert torch.equal(torch.stack([x[key] for x in inputs]), store.sample(key)["x"])
        assert torch.equal(final[key], store.sample(key)["final"])
    draws = [generators(5, [4, 7])(row).initial_seed() for row in (0, 1)]
    assert draws == [generators(5, [7, 4])(row).initial_seed() for row in (1, 0)]  # by key, not by place
