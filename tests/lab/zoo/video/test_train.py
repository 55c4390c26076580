"""The video denoiser: filmed clips, one training that goes on, a weight file that says the sample's size."""

from __future__ import annotations

from pathlib import Path

import torch

from lab import zoo
from lab.zoo.data import Pictures
from lab.zoo.io import load_weights, save_weights
from lab.zoo.train.loop import Recipe
from lab.zoo.video import clips, model, train
from lab.zoo.video.recording import stimulus_clips
from quant.denoisers.families import call, example, sample_shape
from quant.denoisers.macs import count_macs


def test_weights_say_the_size_of_a_clip(tmp_path: Path) -> None:
    built = model.build()
    assert 4 * 10**6 > 2 * sum(p.numel() for p in built.parameters())
    save_weights(built, tmp_path / "w.safetensors", {"null": torch.zeros(82, 192)})
    loaded, extra = load_weights(tmp_path / "w.safetensors", {type(built).__name__: type(built)})
    assert sample_shape(loaded) == sample_shape(built) == model.SHAPE
    assert extra["null"].shape == (82, 192)
    args, _ = example(loaded)  # type: ignore[misc]
    assert args[0].shape == (1, *model.SHAPE)
    macs, rule = count_macs(loaded, None)
    tokens = 8 * 8 * 8
    assert str((1, *model.SHAPE)) in rule and macs["blocks.0.ffn.net.0.proj"] == tokens * 128 * 512


def test_film_only_scenes_and_train(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    pictures = train.scenes(Pictures(images, torch.tensor([0, 205, 3, 211, 7, 9])))
    assert len(pictures) == 4
    latents, tokens = train.film(pictures, zoo.load("autoencoder-64"), zoo.load("encoder-64"), n=6)
    assert latents.shape == (6, *model.SHAPE) and tokens.shape == (6, 82, 192)
    recipe = Recipe(steps=2, batch=2, lr=1e-3, warmup=1)
    trained, outcome = train.train(
        latents, tokens, tmp_path / "s.safetensors", recipe, 0, None, lambda *a: None
    )
    assert outcome.steps == 2 and 0 < outcome.final_loss < 20
    assert trained.null.shape == (19, 192) and trained.blank().shape == (82, 192)


def test_stimuli_film_alike_however_many_are_asked_for() -> None:
    filmed, tokens = stimulus_clips(torch.tensor([4, 9]))
    again, same = stimulus_clips(torch.tensor([9]))
    assert filmed.shape == (2, 8, 3, 64, 64)
    assert torch.equal(again[0], filmed[1])
    torch.testing.assert_close(same[0], tokens[1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_shipped_denoiser_knows_first_frame_and_motion() -> None:
    denoiser, null = zoo.load("video-dit"), zoo.null_tokens("video-dit")
    assert null.shape == (clips.N_TOKENS, clips.WIDTH)
    filmed, tokens = stimulus_clips(torch.tensor([4, 9, 12, 20]))
    x0 = model.encode_frames(zoo.load("autoencoder-64"), filmed)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))

    def error(condition: torch.Tensor) -> float:
        v = call(denoiser, 0.2 * x0 + 0.8 * noise, torch.tensor([800.0]), condition)
        return float((v - (noise - x0)).square().mean())

    swapped = tokens.clone()
    swapped[:, 17] = tokens[:, 17].roll(1, 0)
    own, others = error(tokens), error(tokens.roll(1, 0))
    assert own < 0.8 * others and own < error(swapped) and own < error(null.expand_as(tokens))
