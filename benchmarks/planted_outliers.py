"""SVDQuant's ablation on the zoo's DiT, as it is and with salient input channels planted.

The zoo's denoisers have no strong outliers: smoothing has little to move, and a branch of rank 32 is a sixth
of their width. Here four input channels of every block's self-attention, cross-attention queries and
feed-forward are made 8 to 40 times larger, and the weights' columns smaller by as much, so that the
full-precision model computes what it did.

    python benchmarks/planted_outliers.py --out planted.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

SALIENT, LEAST, MOST = 4, 8.0, 40.0
ARMS = (
    "rtn-w4a4", "svdquant-lowrank-only-rank4", "svdquant-lowrank-only", "svdquant-smooth-only",
    "svdquant-w4a4-rank4", "svdquant-w4a4-common",
)  # fmt: skip


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


def measure(model: nn.Module, store: Any, samples: int) -> list[dict[str, Any]]:
    """Signal over noise of prediction and final latent for every arm, dB."""
    import quant
    from lab.recordings import zoo_scheduler
    from quant.denoiser import Sampler
    from quant.probes import FinalSample, NoisePrediction

    sampler = Sampler(store, zoo_scheduler(), store.null_condition)
    steps = store.settings["n_steps"]
    probes = [
        NoisePrediction(store, samples, 5, "evaluate"),
        FinalSample(sampler, samples, steps, None, "evaluate"),
    ]  # fmt: skip
    references = [probe.run(model) for probe in probes]
    rows = []
    for arm in ARMS:
        quant.quantize_(model, arm, trajectories=store)
        row: dict[str, Any] = {"recipe": arm}
        for probe, reference in zip(probes, references, strict=True):
            found, _ = probe.compare(reference, probe.run(model))
            row |= {k: round(v, 2) for k, v in found.items() if k.endswith("db")}
        quant.restore_(model)
        rows.append(row)
    return rows


def main() -> None:
    """Run both models and write JSON."""
    from lab import zoo
    from lab.files import write_json
    from lab.recordings import zoo_recording

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    store = zoo_recording("dit-64", guidance=1.0, steps=10, device=given.device)
    result = {
        "as it is": measure(zoo.load("dit-64", given.device), store, given.samples),
        "planted": measure(plant(zoo.load("dit-64", given.device)), store, given.samples),
    }
    write_json(given.out, {"model": "dit-64", "samples": given.samples, "device": given.device, **result})


if __name__ == "__main__":
    main()
