"""Time SVDQuant on models of any size: every distinct layer shape measured on a share of its layers.

Nothing of the model's size is ever allocated: shapes come from the config on the meta device, weights are
made when a layer is measured. What is measured is the code that `quant.quantize_` runs on a streamed model
(`quant.denoisers.offload`): weights in bfloat16 on the CPU, one layer's problem on the device, results back.

    python -m benchmarks.svdquant_seconds --size sdxl --device cuda --fraction 0.1 --out NAME

writes NAME.csv, a row for each shape of layer and kind of block, and NAME.md, what it comes to.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import quant
from benchmarks.files import write_csv
from benchmarks.markdown import table
from benchmarks.svdquant_kinds import Blocks, device_name, layer_kinds, open_device
from lab.errors import InputError
from lab.files import write_text
from lab.progress import Progress, reporting, silent
from quant.about import versions


def flux() -> nn.Module:
    """Build FLUX.1-dev: 19 double and 38 single blocks of width 3072."""
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(guidance_embeds=True)


def sdxl() -> nn.Module:
    """Build the U-Net of SDXL."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=[5, 10, 20],  # diffusers reads this as the number of heads
        cross_attention_dim=2048,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
        use_linear_projection=True,
    )


def zoo() -> nn.Module:
    """Build the DiT that ships with the project."""
    from lab.zoo.train.denoiser import build

    return build("dit-64")


SIZES: dict[str, Callable[[], nn.Module]] = {"zoo": zoo, "sdxl": sdxl, "flux": flux}
TOKENS = {"zoo": 17, "sdxl": 77, "flux": 512}
GUIDED = ("zoo", "sdxl")
"""Sampled with guidance: calibration runs the null condition too."""


def bench_svdquant(
    size: str,
    *,
    fraction: float = 0.05,
    recipe: str = "svdquant-w4a4",
    device: str = "cpu",
    batch: int = 16,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a share of the layers of each shape, extrapolate by count.

    Parameters
    ----------
    size : {"zoo", "sdxl", "flux"}
    fraction : float
        Of the layers of each distinct shape, at least one each; 1 measures all.
    recipe : str
        Preset of svdquant.
    device : str
    batch : int
        Samples of a calibration forward; the whole calibration has ``samples * steps`` of the recipe, twice
        that with guidance.
    seed : int

    Returns
    -------
    dict
        Seconds by stage, layers by shape, peak bytes on the device.

    Raises
    ------
    InputError
        Unknown size, a fraction outside (0, 1], a recipe of another method.
    HardwareError
        There is no such device.
    """
    if size not in SIZES:
        raise InputError(f"unknown size {size!r}; known: {', '.join(SIZES)}")
    if not 0 < fraction <= 1:
        raise InputError(f"fraction is {fraction:g}; give a share of the layers above 0 and up to 1")
    _, method, found = quant.recipes.resolve(recipe)
    config: Any = found
    if method.name != "svdquant":
        raise InputError(f"{recipe} is a recipe of {method.name}; this times svdquant's, as svdquant-w4a4")
    target = open_device(device)
    with torch.device("meta"):
        model = nn.Module.to(SIZES[size](), torch.bfloat16).eval()  # the class's own `to` warns
    planned = quant.plan(model, recipe)
    kinds = layer_kinds(model, planned, TOKENS.get(size, 17))
    torch.manual_seed(seed)
    peak = _Peak(target)
    warm_up(kinds, config, target)
    total = sum(measured(kind.count, fraction) for kind in kinds)
    shapes, done = [], 0
    for kind in kinds:
        times = []
        for _ in range(measured(kind.count, fraction)):
            progress(done, total, f"{kind.label}")
            times.append(kind.run(config, target))
            done += 1
        shapes.append(_line(kind, times))
    progress(done, total, "layers measured")
    blocks = Blocks(model, TOKENS.get(size, 17), batch).measure(target, progress)
    forwards = math.ceil(config.samples * config.steps * (1 + (size in GUIDED)) / batch)
    row_bytes = sum(kind.row_bytes(config) * kind.count for kind in kinds)
    chunks = max(1, math.ceil(row_bytes / (8 << 30 if target.type == "cuda" else 1 << 30)))
    seconds = {
        "layers": sum(s["seconds"] * s["count"] for s in shapes),
        "install": sum(s["install_seconds"] * s["count"] for s in shapes),
        "calibration": chunks * forwards * sum(b["seconds"] * b["count"] for b in blocks),
    }
    return {
        "what": "SVDQuant calibration, random weights, layer by layer",
        "size": size, "model": type(model).__name__, "recipe": recipe, "device": device_name(target),
        "parameters": sum(p.numel() for p in model.parameters()),
        "parameters_quantized": sum(line.n_weights for line in planned.quantized),
        "layers_quantized": len(planned.quantized), "fraction": fraction,
        "layers_measured": sum(s["measured"] * s["layers_each"] for s in shapes),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "total_seconds": round(sum(seconds.values()), 2),
        "peak_bytes": peak.read(), "row_bytes_held": row_bytes // chunks, "row_chunks": chunks,
        "calibration_forwards": forwards * chunks, "batch": batch, "shapes": shapes, "blocks": blocks,
        "rule": "layers and install: mean seconds of the measured layers of a shape times their number; "
        "calibration: seconds of one forward of each kind of block times their number times forwards; "
        "layers outside blocks do not count in calibration; making random weights is not timed",
        "versions": versions(),
    }  # fmt: skip


def write(result: dict[str, Any], out: Path) -> None:
    """Write ``out.csv``, a row for each kind of layer and block, and ``out.md``, what it comes to."""
    rows: list[dict[str, Any]] = []
    for shape in result["shapes"]:
        plain = {k: v for k, v in shape.items() if not isinstance(v, list)}
        spread = {"seconds_min": min(shape["seconds_each"]), "seconds_max": max(shape["seconds_each"])}
        rows.append({"kind": "layer", **plain, **spread, "rounds_max": max(shape["rounds"])})
    rows += [{"kind": "block", **block} for block in result["blocks"]]
    write_csv(out.with_suffix(".csv"), rows)
    stages = ", ".join(f"{name} {value:g}" for name, value in result["seconds"].items())
    peak = "" if result["peak_bytes"] is None else f", {result['peak_bytes'] / 1e9:.1f} GB at most"
    lines = [
        f"# {result['what']}", "",
        f"{result['model']} ({result['size']}), {result['parameters'] / 1e6:,.1f} M parameters, "
        f"{result['recipe']} on {result['device']}: {result['total_seconds']:g} s ({stages}){peak}. "
        f"{result['layers_measured']} of {result['layers_quantized']} layers were measured "
        f"(fraction {result['fraction']:g}), {result['calibration_forwards']} calibration forwards of batch "
        f"{result['batch']}; {result['rule']}.", "",
        ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items())), "",
        *table(
            ["shape", "treated", "count", "measured", "seconds each", "install, s"],
            [[s["shape"], s["treated"], str(s["count"]), str(s["measured"]), f"{s['seconds']:.4f}",
              f"{s['install_seconds']:.4f}"] for s in result["shapes"]],
        ), "",
        *table(
            ["block", "count", "seconds of a forward", "parameters"],
            [[b["block"], str(b["count"]), f"{b['seconds']:.4f}", f"{b['parameters']:,}"]
             for b in result["blocks"]],
        ),
    ]  # fmt: skip
    write_text(out.with_suffix(".md"), "\n".join(lines) + "\n")


def measured(count: int, fraction: float) -> int:
    """How many of `count` layers are measured."""
    return min(count, max(1, math.ceil(count * fraction - 1e-9)))


def warm_up(kinds: list[Any], config: Any, target: torch.device) -> None:
    """One small problem first: libraries are loaded on first use."""
    if target.type == "cuda" and kinds:
        min(kinds, key=lambda kind: kind.n_weights).run(config, target)


def _line(kind: Any, times: list[dict[str, Any]]) -> dict[str, Any]:
    n = len(times)
    return {
        "shape": kind.label, "treated": kind.treated, "count": kind.count, "layers_each": len(kind.lines),
        "measured": n,
        "seconds": round(sum(t["seconds"] for t in times) / n, 4),
        "seconds_each": [round(t["seconds"], 4) for t in times],
        "install_seconds": round(sum(t["install_seconds"] for t in times) / n, 4),
        "rounds": [t["rounds"] for t in times],
    }  # fmt: skip


class _Peak:
    """Largest memory held on a GPU since the start; None on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def read(self) -> int | None:
        """Bytes."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None


def main() -> None:
    """Measure one size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="zoo", help=", ".join(SIZES))
    parser.add_argument("--fraction", type=float, default=0.05, help="share of the layers of each shape")
    parser.add_argument("--recipe", default="svdquant-w4a4", help="preset of svdquant")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16, help="samples of a calibration forward")
    parser.add_argument("--seed", type=int, default=0, help="of weights and inputs")
    parser.add_argument("--out", type=Path, required=True, help="NAME of NAME.csv and NAME.md")
    given = vars(parser.parse_args())
    out = given.pop("out")
    with reporting() as progress:
        write(bench_svdquant(given.pop("size"), **given, progress=progress), out)


if __name__ == "__main__":
    main()
