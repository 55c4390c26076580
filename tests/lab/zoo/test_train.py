from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from lab import zoo
from lab.errors import InputError
from lab.zoo import train
from lab.zoo.data import training
from lab.zoo.train import autoencoder, loop
from lab.zoo.train.loop import Outcome, Recipe, fit

DATA = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
GOAL = DATA @ torch.randn(6, 2, generator=torch.Generator().manual_seed(1))
RECIPE = Recipe(steps=60, batch=8, lr=1e-2, warmup=5, ema=0.9)


MEASURED = {"quality", "measured_by", "targets"}
"""What a card says of weights that were measured, and must not say of others."""


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 2))


def loss(model: nn.Module, index: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    noise = 0.05 * torch.randn(len(index), 6)  # random numbers of the step must not depend on the past
    return (model(DATA[index] + noise) - GOAL[index]).square().mean()


def trained(state: Path, **options) -> tuple[nn.Module, Outcome]:
    model = tiny()
    return model, fit(model, loss, len(DATA), RECIPE, state, **options)


class Stopped(Exception):
    """Stands for Ctrl-C."""


def stop_at(step: int):
    def progress(done: int, total: int, what: str) -> None:
        if done >= step:
            raise Stopped

    return progress


def test_training_learns(tmp_path: Path) -> None:
    model, outcome = trained(tmp_path / "a.safetensors")
    with torch.no_grad():
        before, after = ((m(DATA) - GOAL).square().mean() for m in (tiny().eval(), model))
    assert after < 0.5 * before
    assert outcome.steps == 60 and outcome.batch == 8 and outcome.device == "CPU"
    assert not model.training


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole.safetensors")
    state = tmp_path / "parts.safetensors"
    with pytest.raises(Stopped):
        trained(state, save_every=0.0, progress=stop_at(50))
    assert state.is_file()
    model, outcome = trained(state)
    assert outcome.steps == 60
    for key, value in whole.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_moments_lie_as_their_parameters_do(tmp_path: Path) -> None:
    """A fused kernel refuses others, and so a run that goes on, on a GPU."""
    file, layer = tmp_path / "a.safetensors", nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
    optimiser, average = (
        torch.optim.AdamW(layer.parameters()),
        [p.detach().clone() for p in layer.parameters()],
    )
    layer(torch.rand(1, 3, 4, 4)).sum().backward()
    optimiser.step()
    loop._save(file, layer, average, optimiser, {"step": 1, "spent": 0.0})
    moment = optimiser.state[layer.weight]["exp_avg"].clone()
    loop._restore(file, layer, average, optimiser)
    found = optimiser.state[layer.weight]
    assert torch.equal(found["exp_avg"], moment) and found["exp_avg"].stride() == layer.weight.stride()
    assert found["step"].shape == ()


def test_the_seed_matters(tmp_path: Path) -> None:
    one, _ = trained(tmp_path / "a.safetensors", seed=0)
    two, _ = trained(tmp_path / "b.safetensors", seed=1)
    assert not torch.equal(one[0].weight, two[0].weight)


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    model, first = trained(tmp_path / "a.safetensors")
    again, second = trained(tmp_path / "a.safetensors")
    assert torch.equal(model[0].weight, again[0].weight)
    assert (
        second.steps == 60 and second.final_loss == pytest.approx(first.final_loss) and first.final_loss > 0
    )


def test_the_averaged_weights_are_kept(tmp_path: Path) -> None:
    model = tiny()
    recipe = Recipe(steps=60, batch=8, lr=1e-2, warmup=5, ema=0.0)
    fit(model, loss, len(DATA), recipe, tmp_path / "a.safetensors")
    averaged, _ = trained(tmp_path / "b.safetensors")
    assert not torch.equal(model[0].weight, averaged[0].weight)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    model = tiny()
    with pytest.raises(RuntimeError, match="loss became nan at step 0; train with a lower learning rate"):
        fit(model, lambda m, i, k: loss(m, i, k) * torch.nan, 64, RECIPE, tmp_path / "a.safetensors")


def test_refining_changes_the_decoder_and_never_the_encoder(
    own_zoo: Path, data: Path, tmp_path: Path
) -> None:
    before, card = zoo.load("autoencoder-64"), zoo.info("autoencoder-64")
    train.refine("autoencoder-64", data, tmp_path / "state", steps=2, batch=2, limit=4)
    after = zoo.load("autoencoder-64")
    same = {k: torch.equal(v, after.state_dict()[k]) for k, v in before.state_dict().items()}
    assert all(kept for k, kept in same.items() if not k.startswith("decoder."))
    assert not all(kept for k, kept in same.items() if k.startswith("decoder."))
    record = zoo.info("autoencoder-64")["decoder_training"]
    assert record["steps"] == 2 and record["device"] == "CPU" and record["recipe"]["lr"] == 6e-4
    found = zoo.info("autoencoder-64")
    assert found["training"] == card["training"] and not MEASURED & set(found)
    # a second time it starts from what is there, not from the first one's state
    train.refine("autoencoder-64", data, tmp_path / "state", steps=2, batch=2, limit=4)
    third = zoo.load("autoencoder-64").state_dict()
    assert any(not torch.equal(v, third[k]) for k, v in after.state_dict().items())


def test_training_writes_weights_and_card(own_zoo: Path, data: Path, tmp_path: Path) -> None:
    card = train.run("autoencoder-64", data, tmp_path / "state", steps=2, batch=2, limit=4, seed=3)
    assert card["training"]["steps"] == 2 and card["training"]["seed"] == 3
    pictures = training(data, limit=4)
    assert card["training"]["pictures"] == len(pictures) == 12
    with torch.no_grad():
        latents = zoo.load("autoencoder-64").encode(pictures.batch(torch.arange(12)))
    # shift and scale were measured on these very pictures, and are stored in half precision
    assert latents.mean((0, 2, 3)).abs().max() < 0.05
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.05
    assert zoo.info("autoencoder-64")["training"] == card["training"]
    assert card["training"]["command"].endswith(" --steps 2 --batch 2 --limit 4 --seed 3")
    assert not MEASURED & set(zoo.info("autoencoder-64"))
    for other in ({"seed": 4}, {"seed": 3, "steps": 3}):
        with pytest.raises(InputError, match=f"another {list(other)[-1]}; give another --out"):
            train.run(
                "autoencoder-64", data, tmp_path / "state", **{"steps": 2, "batch": 2, "limit": 4} | other
            )
    assert zoo.info("autoencoder-64")["training"] == card["training"]


def test_training_further_starts_from_what_is_there(own_zoo: Path, data: Path, tmp_path: Path) -> None:
    before, card = zoo.load("dit-64"), zoo.info("dit-64")["training"]
    stages = [*card.pop("earlier", []), card]
    options = {"steps": 1, "batch": 2, "limit": 2}
    train.run("dit-64", data, tmp_path / "state", further=True, **options)
    after, history = zoo.load("dit-64"), zoo.info("dit-64")["training"]
    # one warm-up step of Adam moves a weight by a thousandth of the peak rate at most
    change = [(a - b).abs().max() for a, b in zip(after.parameters(), before.parameters(), strict=True)]
    assert 0 < max(change) < 1e-3
    assert history["earlier"] == stages and history["command"].endswith("--further")
    train.run("dit-64", data, tmp_path / "state", **options)
    fresh = zoo.load("dit-64")
    assert (
        max((a - b).abs().max() for a, b in zip(fresh.parameters(), before.parameters(), strict=True)) > 0.1
    )
    assert "earlier" not in zoo.info("dit-64")["training"]
    # what was begun on the latents of one autoencoder does not go on with those of another
    shutil.copyfile(zoo.weight_file("structure-64"), zoo.weight_file("autoencoder-64"))
    with pytest.raises(InputError, match="another weights; give another --out"):
        train.run("dit-64", data, tmp_path / "state", **options)


def test_bad_input_is_refused_before_any_work(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown zoo model"):
        train.run("autoencoder-65", data, tmp_path)
    with pytest.raises(InputError, match="steps is 0; it must be at least 1"):
        train.run("autoencoder-64", data, tmp_path, steps=0)
    with pytest.raises(InputError, match="batch is 0"):
        train.run("unet-64", data, tmp_path, batch=0)
    with pytest.raises(InputError, match="'encoder-64' cannot be refined; allowed: autoencoder-64"):
        train.refine("encoder-64", data, tmp_path)
    assert not list(tmp_path.iterdir())


def test_recipes_are_known_for_every_model() -> None:
    for name in ("autoencoder-64", "encoder-64", "structure-64", "unet-64", "dit-64"):
        assert train._recipe(name).steps > 1000
    assert autoencoder.REFINE_RECIPE.batch == 256
