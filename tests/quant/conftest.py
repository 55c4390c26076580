"""Tiny random models that every quant test shares."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import quant
from tests.quant.families import family, store

__all__ = ["family", "store"]


class Odd(nn.Module):
    """Sizes that no group divides; strided, depthwise and pointwise convolutions; odd row lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(5, 24, 3, padding=1)
        self.wide = nn.Conv2d(24, 70, 3, padding=1, stride=2, bias=False)
        self.depthwise = nn.Conv2d(70, 70, 3, padding=1, groups=70)
        self.pointwise = nn.Conv2d(70, 33, 1)
        self.linear = nn.Linear(33, 131)
        self.out = nn.Linear(131, 3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.nn.functional.silu(self.first(x))
        hidden = self.pointwise(self.depthwise(torch.nn.functional.silu(self.wide(hidden))))
        return self.out(torch.nn.functional.silu(self.linear(hidden.flatten(2).transpose(1, 2))))


def unet(side: int = 8) -> nn.Module:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=side,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=24,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


def level() -> nn.Module:
    """A U-Net of one level and one attention, which a pass takes a third of the time of `unet`."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32,), layers_per_block=1,
        norm_num_groups=8, cross_attention_dim=24, attention_head_dim=8,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip


def pixart(side: int = 8) -> nn.Module:
    from diffusers import PixArtTransformer2DModel

    return PixArtTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=18,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        norm_num_groups=4,
        cross_attention_dim=72,
        sample_size=side,
        patch_size=2,
        caption_channels=24,
        use_additional_conditions=False,
    )


BUILDERS = {"odd": Odd, "unet": unet, "pixart": pixart}


def inputs(name: str, batch: int = 2) -> tuple[tuple, dict]:
    """Arguments of one forward, drawn with a fixed seed."""
    generator = torch.Generator().manual_seed(1)
    if name == "odd":
        return (torch.randn(batch, 5, 9, 9, generator=generator),), {}
    x = torch.randn(batch, 4, 8, 8, generator=generator)
    condition = torch.randn(batch, 7, 24, generator=generator)
    kwargs = {"encoder_hidden_states": condition, "timestep": torch.full((batch,), 500.0)}
    if name == "pixart":
        kwargs["added_cond_kwargs"] = {"resolution": None, "aspect_ratio": None}
    return (x,), kwargs


def build(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return {**BUILDERS, "level": level}[name]().eval()


@torch.no_grad()
def run(model: nn.Module, name: str) -> torch.Tensor:
    args, kwargs = inputs(name)
    dtype = next(p for p in model.parameters() if p.is_floating_point()).dtype
    args = tuple(a.to(dtype) for a in args)
    kwargs = {k: v.to(dtype) if k == "encoder_hidden_states" else v for k, v in kwargs.items()}
    out = model(*args, **kwargs)
    return out if isinstance(out, torch.Tensor) else out.sample


@pytest.fixture(params=list(BUILDERS))
def model_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """`build(name, seed)`, `inputs(name)`, `run(model, name)` for the models above."""
    return SimpleNamespace(build=build, inputs=inputs, run=run, names=tuple(BUILDERS))


@pytest.fixture(scope="session")
def peak_bytes() -> Callable[[Callable[[], object]], int]:
    """``peak_bytes(work)``: most bytes of CPU tensors alive at once that `work` made."""
    return _peak_bytes


def _peak_bytes(work: Callable[[], object]) -> int:
    """Peak of live tensor storage, followed through the dispatcher."""
    live, state = {}, {"now": 0, "peak": 0}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                    storage = tensor.untyped_storage()
                    if storage._cdata not in live:
                        size = storage.nbytes()
                        live[storage._cdata] = size
                        state["now"] += size
                        state["peak"] = max(state["peak"], state["now"])
                        weakref.finalize(storage, lambda key=storage._cdata: gone(key))
            return out

    def gone(key) -> None:
        state["now"] -= live.pop(key, 0)

    gc.collect()
    with Watch():
        work()
    return state["peak"]


@pytest.fixture(scope="session")
def recorded(tiny, tmp_path_factory) -> Callable[[str], quant.Trajectories]:
    """``recorded("unet")``: 6 samples of 3 steps of a tiny model with its seed 0 weights."""
    made: dict[str, quant.Trajectories] = {}

    def get(name: str) -> quant.Trajectories:
        if name not in made:
            conditions = torch.randn(6, 7, 24, generator=torch.Generator().manual_seed(0))
            path = tmp_path_factory.mktemp(f"recorded-{name}")
            made[name] = quant.record(
                tiny.build(name), FlowMatchEulerDiscreteScheduler(), conditions, path, n_steps=3, batch_size=6
            )
        return made[name]

    return get
