"""How each family is called: the adapter gives what diffusers' own call gives, and checks what it takes."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

import quant
from quant.denoisers import families
from quant.denoisers.macs import count_macs
from quant.recordings.sampling import predict


def latents(family, name: str, count: int = 2) -> torch.Tensor:
    shape = family.shapes.get(name, (4, 8, 8))
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def by_hand(name: str, model, x, condition):
    """What a diffusers pipeline does for this family."""
    time = torch.full((len(x),), 250.0)
    if name == "unconditional":
        return model(x, time).sample
    if name == "dit":
        return model(x, timestep=time, class_labels=condition).sample[:, :4]
    tokens = condition[:, :7]
    if name == "unet":
        return model(x, time, encoder_hidden_states=tokens).sample
    if name == "pixart":
        added = {"resolution": None, "aspect_ratio": None}
        out = model(x, encoder_hidden_states=tokens, timestep=time, added_cond_kwargs=added).sample
        return out.chunk(2, 1)[0]
    pooled = condition[:, 7, :20]
    if name == "sd3":
        return model(x, tokens, pooled_projections=pooled, timestep=time).sample
    packed = FluxPipeline._pack_latents(x, len(x), 4, 8, 8)
    ids = FluxPipeline._prepare_latent_image_ids(len(x), 4, 4, "cpu", torch.float32)
    out = model(
        packed, encoder_hidden_states=tokens, pooled_projections=pooled, timestep=time / 1000,
        img_ids=ids, txt_ids=torch.zeros(7, 3), guidance=torch.full((len(x),), 3.5),
    ).sample  # fmt: skip
    return FluxPipeline._unpack_latents(out, 64, 64, 8)


@pytest.mark.parametrize("name", ["unet", "unconditional", "dit", "pixart", "sd3", "flux"])
def test_predict_is_the_familys_own_call(name: str, family) -> None:
    model = family.build(name)
    x, condition = latents(family, name), family.conditions(name, model, 2)
    with torch.no_grad():
        out = predict(model, x, torch.tensor([250.0]), condition)
    assert out.shape == x.shape and out.std() > 0
    assert torch.equal(out, by_hand(name, model, x, condition))
    if condition is not None:
        with torch.no_grad():
            other = predict(model, x, torch.tensor([250.0]), condition.flip(0))
        assert not torch.equal(out, other), "the condition has no say"
    macs, rule = count_macs(model, None)
    assert sum(macs.values()) > 0 and "counted over one forward" in rule


def test_extras_travel_in_the_condition(family) -> None:
    model = family.build("flux")
    tokens, pooled = torch.randn(2, 7, 24), torch.randn(2, 20)
    packed = families.pack(model, tokens, pooled_projections=pooled, guidance=3.5)
    assert packed.shape == (2, 8, 24)
    again, extras = families.unpack(model, packed)
    assert torch.equal(again, tokens) and torch.equal(extras["pooled_projections"], pooled)
    assert extras["guidance"].tolist() == [[3.5], [3.5]]
    with pytest.raises(quant.InputError, match=r"pooled_projections \(20 numbers\), guidance \(1"):
        families.pack(model, tokens, guidance=3.5)
    with pytest.raises(quant.InputError, match=r"must have shape \(2, 20\), got \(2, 19\)"):
        families.pack(model, tokens, pooled_projections=pooled[:, :19], guidance=3.5)
    with pytest.raises(
        quant.InputError, match=r"got shape \(2, 1, 24\): make it with quant.denoisers.families.pack"
    ):
        families.unpack(model, tokens[:, :1])
    with pytest.raises(quant.InputError, match="even height and width, got 7 x 8"):
        predict(model, torch.randn(2, 4, 7, 8), torch.tensor([1.0]), packed)
    with pytest.raises(quant.InputError, match="takes these inputs beside tokens: none"):
        families.pack(family.build("unet"), tokens, guidance=1.0)
    with pytest.raises(quant.InputError, match="FluxTransformer2DModel does not say its sample size"):
        quant.record(model, FlowMatchEulerDiscreteScheduler(), packed, "nowhere", n_steps=1)


def test_sizes_of_sdxl_and_pixart_alpha() -> None:
    """The extras of the published models, by their published configs."""
    unet, pixart = families.FAMILIES["UNet2DConditionModel"], families.FAMILIES["PixArtTransformer2DModel"]
    xl = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
    base, refiner = ({**xl, "projection_class_embeddings_input_dim": n} for n in (2816, 2560))
    assert unet.extras(base.get) == {"text_embeds": 1280, "time_ids": 6}
    assert unet.extras(refiner.get) == {"text_embeds": 1280, "time_ids": 5}
    assert pixart.extras({"sample_size": 128}.get) == {"resolution": 2, "aspect_ratio": 1}
    assert pixart.extras({"sample_size": 64}.get) == {}


def test_extras_reach_sdxl_and_pixart_alpha(family) -> None:
    """Pooled text and picture sizes arrive under the model's own names."""
    x, tokens, time = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 24), torch.tensor([250.0])
    sizes = torch.tensor([8.0, 8, 0, 0, 8, 8]).expand(2, 6)
    added = {"text_embeds": torch.randn(2, 20), "time_ids": sizes}
    more = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    unet = family.build("unet", projection_class_embeddings_input_dim=20 + 6 * 8, **more)
    condition = families.pack(unet, tokens, **added)
    with torch.no_grad():
        expected = unet(x, time.expand(2), tokens, added_cond_kwargs=added).sample
        assert torch.equal(predict(unet, x, time, condition), expected)
    pixart = family.build("pixart", use_additional_conditions=True)
    added = {"resolution": torch.full((2, 2), 64.0), "aspect_ratio": torch.ones(2, 1)}
    condition = families.pack(pixart, tokens, **added)
    with torch.no_grad():
        expected = pixart(x, tokens, time.expand(2), added_cond_kwargs=added).sample[:, :4]
        assert torch.equal(predict(pixart, x, time, condition), expected)
    for model in (unet, pixart):
        assert "counted over one forward" in count_macs(model, None)[1]
