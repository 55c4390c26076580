from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import nn

from brainit import metrics
from lab import zoo
from lab.errors import InputError, MissingDataError
from lab.zoo import patterns
from lab.zoo.io import load_weights, save_weights


@lru_cache(maxsize=4)
def model(name: str) -> nn.Module:
    return zoo.load(name)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    drawn, _ = patterns.draw(6, seed=5)
    return drawn.float() / 255


@pytest.mark.parametrize(
    "name",
    ["autoencoder-64", "encoder-64", "structure-64", "unet-64", "dit-64", "shared-64", "watermark-64"],
)
def test_first_set_is_here_and_loads(name: str) -> None:
    assert name in zoo.names()
    assert not model(name).training
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in model(name).parameters())
    assert zoo.info(name)["parameters"] == sum(p.numel() for p in model(name).parameters())


def test_each_load_is_a_copy_of_its_own() -> None:
    one, two = zoo.load("structure-64"), zoo.load("structure-64")
    next(one.parameters()).data.zero_()
    assert next(two.parameters()).abs().sum() > 0


@torch.no_grad()
def test_autoencoder(images: torch.Tensor) -> None:
    autoencoder = model("autoencoder-64")
    latents = autoencoder.encode(images)
    assert latents.shape == (6, 8, 16, 16)
    assert torch.equal(latents, autoencoder.encode(images))
    made = autoencoder.decode(latents)
    assert made.shape == images.shape and made.min() >= 0 and made.max() <= 1
    assert autoencoder.decode(latents * 9).max() <= 1
    pair = [x.permute(0, 2, 3, 1).numpy() for x in (made, images)]
    assert metrics.psnr(*pair, cap=60).mean() > 33
    assert metrics.psnr(*pair, cap=60).min() > 24


@torch.no_grad()
def test_encoder_tokens_are_normalised(images: torch.Tensor) -> None:
    tokens = model("encoder-64")(images)
    assert tokens.shape == (6, 17, 192)
    assert tokens.mean(-1).abs().max() < 1e-5
    assert (tokens.var(-1, unbiased=False) - 1).abs().max() < 1e-3


@torch.no_grad()
def test_encoder_knows_patterns_and_places() -> None:
    drawn, kinds = patterns.draw(40, seed=6)
    x = drawn.float() / 255
    encoder = model("encoder-64")
    tokens = encoder(x)
    assert (encoder.classify(tokens).argmax(1) - 210 == kinds).float().mean() > 0.8
    changed = x.clone()
    changed[:, :, 48:, 48:] = 1 - changed[:, :, 48:, 48:]  # the last of the 4x4 places
    moved = (encoder(changed) - tokens)[:, 1:].square().mean((0, 2))
    assert moved.argmax() == 15


@torch.no_grad()
def test_structure(images: torch.Tensor) -> None:
    structure = model("structure-64")
    maps = structure.features(images)
    assert [tuple(m.shape) for m in maps] == [(6, 16, 16, 16), (6, 32, 8, 8), (6, 64, 4, 4)]
    made = structure.invert(maps)
    assert made.shape == images.shape and made.min() >= 0 and made.max() <= 1
    pair = [x.permute(0, 2, 3, 1).numpy() for x in (made, images)]
    assert metrics.pixcorr(*pair).mean() > 0.9


@torch.no_grad()
@pytest.mark.parametrize("name", zoo.DECODERS)
def test_denoiser_has_learned(images: torch.Tensor, name: str) -> None:
    denoiser, null = model(name), zoo.null_tokens(name)
    assert null.shape == (17, 192)
    x0, c = model("autoencoder-64").encode(images), model("encoder-64")(images)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    t = torch.full((6,), 500.0)

    def error(condition: torch.Tensor) -> float:
        v = denoiser(0.5 * x0 + 0.5 * noise, timestep=t, encoder_hidden_states=condition).sample
        return float((v - (noise - x0)).square().mean())

    told, untold, wrong = error(c), error(null.expand_as(c)), error(c.roll(1, 0))
    assert told < 0.5 and told < untold < wrong


def test_weights_are_light() -> None:
    sizes = [file.stat().st_size for file in (zoo.HOME / "weights").iterdir() if file.suffix != ".part"]
    assert sum(sizes) <= 51.5e6  # the house rule of 50 MB for weights, and the sheet of stimuli
    assert max(sizes) < 16 * 2**20


@pytest.mark.parametrize("name", ["autoencoder-64", "encoder-64", "structure-64", "unet-64", "dit-64"])
def test_card_says_how_it_was_made_and_what_it_reaches(name: str) -> None:
    card = zoo.info(name)
    assert {"name", "parameters", "training", "quality", "measured_by", "limits"} <= set(card)
    assert {"pictures", "data", "seed", "recipe", "steps", "seconds", "device"} <= set(card["training"])
    assert card["measured_by"].startswith(f"brainlab zoo evaluate {name}")
    assert all(f"{kind}.n" in card["quality"] for kind in ("natural", "digits", "patterns"))
    for key, goal in card.get("targets", {}).items():
        assert goal["reached"] == card["quality"][key]
        assert goal["met"] == (goal["reached"] >= goal["target"])
    assert (zoo.HOME / "cards" / f"{name}.webp").stat().st_size < 300_000


def test_card_of_the_shared_network_has_every_method_beside_ridge() -> None:
    card = zoo.info("shared-64")
    assert card["training"]["command"].startswith("brainlab zoo train shared-64")
    found = card["newcomers"]
    assert {(r["cortex"], r["ceiling"]) for r in found["rows"]} >= {("alexnet", 0.1), ("efficientnet", 0.3)}
    for row in found["rows"]:
        # what ships is never below ridge where the interval could tell
        assert all(high > 0 for _, _, high in row["network"]["above_ridge"].values())
    sheet = zoo.HOME / "cards" / "shared-64.webp"
    assert sheet.stat().st_size < 300_000 and len(found["sheet_rows"]) == 16


def test_unknown_and_missing_models_are_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for call in (zoo.load, zoo.info, zoo.summary, zoo.weight_file, zoo.null_tokens):
        with pytest.raises(InputError, match="unknown zoo model 'unet-65'; allowed: autoencoder-64"):
            call("unet-65")
    monkeypatch.setattr(zoo, "HOME", tmp_path)
    with pytest.raises(MissingDataError, match="brainlab zoo train unet-64") as caught:
        zoo.load("unet-64")
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)
    assert zoo.names() == []


class Named(nn.Linear):
    """A module with a config, as diffusers' have."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)
        self.config = {"width": width, "_private": 1}


def test_weight_file_goes_there_and_back_in_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, extra = Named(3), {"null": torch.randn(2, 3)}
    save_weights(module, tmp_path / "a.safetensors", extra)
    back, found = load_weights(tmp_path / "a.safetensors", {"Named": Named})
    assert torch.equal(back.weight, module.weight.half().float())
    assert torch.equal(found["null"], extra["null"].half().float())
    for wrong in (torch.nan, 7e4):  # beyond half precision
        with torch.no_grad():
            module.weight[1, 1] = wrong
        with pytest.raises(InputError, match=r"1 of 3 weights are not finite .* \(first weight\)"):
            save_weights(module, tmp_path / "a.safetensors", extra)
    assert torch.equal(load_weights(tmp_path / "a.safetensors", {"Named": Named})[0].weight, back.weight)
    with pytest.raises(InputError, match="holds Named; allowed: "):
        load_weights(tmp_path / "a.safetensors", {})
    assert [f.name for f in tmp_path.iterdir()] == ["a.safetensors"]


def test_importing_the_zoo_imports_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, json, lab.zoo as z; print(json.dumps([z.names(), 'torch' in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    there, torch_came = json.loads(done.stdout)
    assert "unet-64" in there and not torch_came
