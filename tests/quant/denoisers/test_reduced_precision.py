"""Flux as its pipeline runs it, and blocks whose arguments have no batch axis."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import quant
from quant.denoisers.families import forward_arguments
from quant.methods.dgq import DgqConfig
from quant.methods.eda_dm import EdaDmConfig
from quant.methods.eda_dm.sampling import calibration
from quant.training.blocks import Inputs, find_units, inputs_of

TOKENS = 7 + 16
"""Of the tiny Flux: text and 2 x 2 patches of an 8 x 8 latent."""


@pytest.fixture(scope="module")
def many(family, tmp_path_factory):
    model = family.build("flux")
    return quant.record(
        model, FlowMatchEulerDiscreteScheduler(), family.conditions("flux", model, 32),
        tmp_path_factory.mktemp("many"), n_steps=2, shape=(4, 8, 8),
    )  # fmt: skip


def test_dgq_finds_its_tables_in_bfloat16(family, store) -> None:
    model = family.build("flux").to(torch.bfloat16)
    recorded = store("flux")
    config = DgqConfig(groups=2, axis="channel", samples=2)
    quant.quantize_(model, config, trajectories=recorded, include=["transformer_blocks.*"])
    row = recorded.sample(0)
    for step, time in enumerate(recorded.timesteps):
        x, condition = row["x"][step][None].bfloat16(), row["condition"][None].bfloat16()
        args, kwargs = forward_arguments(model, x, torch.tensor([time]), condition)
        with torch.no_grad():
            exact = model(*args, **kwargs).sample
            # FluxPipeline: t.expand(n).to(latents.dtype), then / 1000
            kwargs["timestep"] = torch.tensor([time]).bfloat16() / 1000
            assert model(*args, **kwargs).sample.isfinite().all() and exact.isfinite().all()
    kwargs["timestep"] = torch.tensor([0.7 * recorded.timesteps[0]]).bfloat16() / 1000
    with pytest.raises(quant.InputError, match="not in the calibrated table"):
        model(*args, **kwargs)


@pytest.mark.parametrize("points", [TOKENS - 1, TOKENS])
def test_tables_as_long_as_the_batch_are_not_cut(points: int, family, many) -> None:
    """Flux's rotary tables have one row a token; with as many points they were permuted with the points."""
    model = family.build("flux")
    batch, _ = calibration(model, many, EdaDmConfig(points=points, calibration="random"), 0)
    whole = inputs_of(model, "transformer_blocks.0", batch, points)
    both = zip(whole.leaves, whole.cut, strict=True)
    tables = [cut for leaf, cut in both if leaf is not None and tuple(leaf.shape) == (TOKENS, 16)]
    assert tables == [False, False]
    block = model.get_submodule("transformer_blocks.0")
    order = torch.randperm(points, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = whole.call(block, whole.rows(torch.arange(points)))
        torch.testing.assert_close(whole.call(block, whole.rows(order)), out[order], rtol=1e-4, atol=1e-5)


def test_flux_trains_with_a_batch_as_large_as_its_tokens(family, many) -> None:
    model = family.build("flux")
    config = EdaDmConfig(points=TOKENS + 3, batch_size=TOKENS, iterations=1, calibration="random")
    ledger = quant.quantize_(model, config, trajectories=many, include=["transformer_blocks.*"])
    assert len(ledger.quantized) > 5


def test_single_points_are_cut_too(family, many) -> None:
    model = family.build("flux")
    batch, _ = calibration(model, many, EdaDmConfig(points=1, calibration="random"), 0)
    found = inputs_of(model, "transformer_blocks.0", batch, 1)
    assert found.count == 1 and True in found.cut and False in found.cut
    names = [line.name for line in quant.plan(model, EdaDmConfig()).quantized]
    assert find_units(model, names, batch, True)


def test_arguments_that_follow_the_batch_another_way_are_refused() -> None:
    def call(size: int):
        return (torch.zeros(size, 3), torch.zeros(4 * size, 2)), {}

    with pytest.raises(quant.InputError, match=r"shape \(8, 2\) for 2 points and \(4, 2\) for 1"):
        Inputs([(call(2), 2)], (call(1), 1))
