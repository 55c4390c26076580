"""Time SVDQuant on models of any size: every distinct layer shape measured on a share of its layers.

Nothing of the model's size is ever allocated: shapes come from the config on the meta device, weights are
made when a layer is measured. What is measured is the code that `quant.quantize_` runs on a streamed model
(`quant.denoisers.offload`): weights in bfloat16 on the CPU, one layer's problem on the device, results back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lab.errors import InputError
from lab.progress import Progress, silent


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
    out: Path,
    *,
    fraction: float = 0.05,
    recipe: str = "svdquant-w4a4",
    device: str = "cpu",
    batch: int = 16,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a share of the layers of each shape, extrapolate by count, write JSON.

    Parameters
    ----------
    size : {"zoo", "sdxl", "flux"}
    out : Path
        JSON file.
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
        Seconds by part, layers by shape, peak bytes on the device.

    Raises
    ------
    InputError
        Unknown size, a fraction outside (0, 1], a recipe of another method.
    HardwareError
        There is no such device.
    """
    import quant
    from lab.files import write_json
    from lab.jobs.bench_parts import Blocks, device_name, layer_kinds, open_device

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
    result = {
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
        "versions": quant.api.versions(),
    }  # fmt: skip
    write_json(out, result)
    return result


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


def wait(device: torch.device) -> float:
    """Wait for the device and return the time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def random_rows(n: int, width: int, device: torch.device, after_gelu: bool = False) -> Tensor:
    """Draw inputs with channels of different sizes and a few salient ones: (n, width), float32."""
    scale = torch.exp(0.5 * torch.randn(width, device=device))
    salient = torch.rand(width, device=device) < 0.01
    rows = torch.randn(n, width, device=device) * torch.where(salient, 20 * scale, scale)
    return nn.functional.gelu(rows) if after_gelu else rows
