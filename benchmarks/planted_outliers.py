"""What claims about outliers come to on the zoo's DiT once it has outliers; it computes what it did.

Channels, for SVDQuant's ablation: the zoo's denoisers have no strong outliers, so smoothing has little to
move, and a branch of rank 32 is a sixth of their width. Four input channels of every block's self-attention,
cross-attention queries and feed-forward are made 8 to 40 times larger, and the weights' columns smaller by as
much.

A sink token, for MixDQ: the zoo's tokens are layer-normalised, no one stands out. One constant token of size
300 is put before the condition of every cross-attention, and a mask keeps the attention from it: it does
nothing but stretch the range of the keys' and values' inputs, as the first token of CLIP does.

    python -m benchmarks.planted_outliers --out planted.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.files import write_csv

SALIENT, LEAST, MOST = 4, 8.0, 40.0
SINK = 300.0
CHANNEL_RECIPES = (
    "rtn-w4a4", "svdquant-lowrank-only-rank4", "svdquant-lowrank-only", "svdquant-smooth-only",
    "svdquant-w4a4-rank4", "svdquant-w4a4-common",
)  # fmt: skip
SINK_RECIPES = ("mixdq-w8a8+momentum=null+sinks=false", "mixdq-w8a8+momentum=null")


def plant(model: nn.Module, seed: int = 0) -> nn.Module:
    """Make some input channels salient, in place; hooks scale inputs, weights take it back."""
    generator = torch.Generator().manual_seed(seed)
    blocks: Any = model.transformer_blocks
    for block in blocks:
        for module, layers in (
            (block.attn1, ("to_q", "to_k", "to_v")), (block.attn2, ("to_q",)), (block.ff, ("net.0.proj",)),
        ):  # fmt: skip
            width = module.get_submodule(layers[0]).in_features
            factor = torch.ones(width)
            where = torch.randperm(width, generator=generator)[:SALIENT]
            factor[where] = LEAST + (MOST - LEAST) * torch.rand(SALIENT, generator=generator)
            for name in layers:
                weight = module.get_submodule(name).weight
                weight.data /= factor.to(weight)
            module.register_forward_pre_hook(_scale(factor), with_kwargs=True)
    return model


def _scale(factor: torch.Tensor) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (args[0] * factor.to(args[0]), *args[1:]), kwargs
        hidden = kwargs["hidden_states"]
        return args, {**kwargs, "hidden_states": hidden * factor.to(hidden)}

    return hook


def plant_sink(model: nn.Module, seed: int = 0) -> nn.Module:
    """Put a constant, huge, masked token before every cross-attention's condition, in place."""
    generator = torch.Generator().manual_seed(seed)
    blocks: Any = model.transformer_blocks
    for block in blocks:
        token = torch.randn(1, 1, block.attn2.to_k.in_features, generator=generator)
        token *= SINK / token.abs().max()
        block.attn2.register_forward_pre_hook(_before_condition(token), with_kwargs=True)
    return model


def _before_condition(token: torch.Tensor) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        states = kwargs["encoder_hidden_states"]
        if kwargs.get("attention_mask") is not None:
            raise ValueError("the condition has a mask of its own")
        longer = torch.cat([token.to(states).expand(len(states), -1, -1), states], 1)
        mask = longer.new_zeros(len(longer), 1, longer.shape[1])
        mask[..., 0] = -torch.inf
        return args, {**kwargs, "encoder_hidden_states": longer, "attention_mask": mask}

    return hook


def measure(model: nn.Module, store: Any, samples: int, recipes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Signal over noise of prediction and final latent for every recipe, dB."""
    import quant
    from lab.zoo.recordings import zoo_scheduler
    from quant.recipes import parse
    from quant.recordings.repeat import Sampler
    from quant.sensitivity.probes import FinalSample, NoisePrediction

    sampler = Sampler(store, zoo_scheduler(), store.null_condition)
    steps = store.settings["n_steps"]
    probes: list[Any] = [
        NoisePrediction(store, samples, 5, "evaluate"),
        FinalSample(sampler, samples, steps, None, "evaluate"),
    ]  # fmt: skip
    references = [probe.run(model) for probe in probes]
    rows = []
    for name in recipes:
        quant.quantize_(model, parse(name).config(), trajectories=store)
        row: dict[str, Any] = {"recipe": name}
        for probe, reference in zip(probes, references, strict=True):
            found, _ = probe.compare(reference, probe.run(model))
            row |= {k: round(v, 2) for k, v in found.items() if k.endswith("db")}
        quant.restore_(model)
        rows.append(row)
    return rows


def main() -> None:
    """Run all models and write CSV."""
    from lab import zoo
    from lab.zoo.recordings import zoo_recording

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    store = zoo_recording("dit-64", guidance=1.0, steps=10, device=given.device)
    about = {"model": "dit-64", "samples": given.samples, "device": given.device}
    rows: list[dict[str, Any]] = []
    for planted, change, recipes in (
        ("nothing", lambda model: model, (*CHANNEL_RECIPES, *SINK_RECIPES)),
        ("salient channels", plant, CHANNEL_RECIPES),
        ("sink token", plant_sink, SINK_RECIPES),
    ):
        found = measure(change(zoo.load("dit-64", given.device)), store, given.samples, recipes)
        rows += [{"planted": planted, **row, **about} for row in found]
    write_csv(given.out, rows)


if __name__ == "__main__":
    main()
