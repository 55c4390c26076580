"""A recording is repeated bit by bit with the model that made it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverSinglestepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from safetensors.torch import save_file

import quant
from quant.recordings.repeat import Sampler
from quant.recordings.sampling import generators
from tests.quant.recordings.affine import Affine

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


def test_a_recording_that_sets_out_from_states_is_the_loop_by_hand(tmp_path: Path) -> None:
    """With a scheduler whose states are a dozen times as wide as what the model is given of them."""
    start = 9 * torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    model, scheduler = Affine(), EulerDiscreteScheduler()
    options = {"n_steps": 3, "guidance": 2.0, "null_condition": NULL, "shape": (4, 3, 3), "batch_size": 2}
    store = quant.record(model, EulerDiscreteScheduler(), CONDITIONS, tmp_path / "a", start=start, **options)
    assert torch.equal(store.null_condition, NULL)
    (tmp_path / "a" / "null.safetensors").unlink()  # calibration saw one half of guidance then
    with pytest.raises(quant.MissingDataError, match=r"has lost null\.safetensors: .* or call quant\.record"):
        quant.Trajectories.open(tmp_path / "a")
    again = quant.record(model, EulerDiscreteScheduler(), CONDITIONS, tmp_path / "a", start=start, **options)
    assert again.hash == store.hash and torch.equal(again.null_condition, NULL)
    save_file({"null_condition": NULL + 1}, tmp_path / "a" / "null.safetensors")
    with pytest.raises(quant.InputError, match=r"null\.safetensors was changed after it was recorded"):
        again.verify()
    scheduler.set_timesteps(3)
    x, seen = start, []
    for t in scheduler.timesteps:
        seen.append(scheduler.scale_model_input(x, t))
        held, free = (model(seen[-1], t, c.expand(5, 5, 24)) for c in (CONDITIONS, NULL))
        x = scheduler.step((free + 2 * (held - free)).detach(), t, x).prev_sample
    for key in range(5):
        torch.testing.assert_close(store.sample(key)["x"], torch.stack(seen)[:, key], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(store.sample(key)["final"], x[key], rtol=1e-4, atol=1e-4)
    assert float(seen[0].abs().max()) < 0.2 * float(start.abs().max())
    inputs, final = Sampler(store, EulerDiscreteScheduler(), NULL).run(model, [3, 1])
    torch.testing.assert_close(inputs[0], start[[3, 1]])
    torch.testing.assert_close(final, x[[3, 1]], rtol=1e-4, atol=1e-4)
    with pytest.raises(quant.InputError, match=r"start has shape \(2, 4, 3, 3\); 5 samples need"):
        quant.record(model, EulerDiscreteScheduler(), CONDITIONS, tmp_path / "b", start=start[:2], **options)


def test_a_scheduler_that_settles_its_own_settings_repeats_its_recording(tmp_path: Path) -> None:
    scheduler, options = DPMSolverSinglestepScheduler(), {"n_steps": 3, "shape": (4, 3, 3), "batch_size": 5}
    store = quant.record(Affine(), scheduler, CONDITIONS, tmp_path / "a", **options)
    assert scheduler.config.lower_order_final and not store.settings["scheduler_config"]["lower_order_final"]
    Sampler(store, scheduler)
    with pytest.raises(quant.InputError, match="with solver_order = 2, got 1"):
        Sampler(store, DPMSolverSinglestepScheduler(solver_order=1))


def test_recordings_of_before_that_kept_no_lists_go_on(tmp_path: Path) -> None:
    model, options = Affine(), {"n_steps": 3, "shape": (4, 3, 3), "batch_size": 5}
    store = quant.record(model, UniPCMultistepScheduler(), CONDITIONS, tmp_path / "a", **options)
    manifest = tmp_path / "a" / "manifest.json"
    older = json.loads(manifest.read_text())
    assert older["settings"]["scheduler_config"].pop("disable_corrector") == []
    manifest.write_text(json.dumps(older))
    again = quant.record(model, UniPCMultistepScheduler(), CONDITIONS, tmp_path / "a", **options)
    assert again.hash == store.hash and json.loads(manifest.read_text()) == older
