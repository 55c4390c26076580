"""Time whole denoisers of FLUX's and SDXL's size, with random weights: 16 bit, float8, and 4 bits natively.

    python -m benchmarks.whole_models --out benchmarks/results/whole-models-h200

writes NAME.csv after every row, NAME.md, and NAME-kernels.csv: where GPU time goes. Each engine is compiled
block by block and then captured as a CUDA graph, so that launches cost nobody anything. ``--toy`` runs tiny
ones on the CPU, for tests (with TRITON_INTERPRET=1 natively, too); its times mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.files import write_csv
from benchmarks.markdown import table
from benchmarks.whole_engines import prepare_native_, settle, tensor_bytes, to_float8_, to_native_
from benchmarks.whole_fusing import fused, group_norm
from benchmarks.whole_launches import THREADS, gpu_times, only_built
from kernels.checkout import commit
from lab.errors import HardwareError, show
from lab.files import write_text
from quant.layers.native.producers import wire_

REPEATS = 9
SMALLEST = 640
"""Inputs of a layer from which float8 and 4-bit products are used; smaller ones are embeddings."""

BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D", "Downsample2D", "Upsample2D")
"""What is compiled of a U-Net."""


class Size(NamedTuple):
    """A model to time.

    Attributes
    ----------
    build : callable
        Makes it, in the default type on the default device.
    inputs : callable
        ``inputs(device, dtype)``: keyword arguments of a forward.
    compile : callable
        Compiles it in place, with a backend of torch.compile.
    float8 : bool
        Whether the row-wise float8 engine is timed.
    wide : float
        Outputs for each input from which a layer is multiplied in 4 bits on both sides; below it, weights
        only have 4 bits, since quantizing the input takes longer than the product saves.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[torch.device, torch.dtype], dict[str, Any]]
    compile: Callable[[nn.Module, str], None]
    float8: bool
    wide: float = 0.0


def flux(toy: bool) -> Size:
    """FLUX.1's transformer: 19 double and 38 single blocks; 4096 picture and 512 text tokens, batch 1."""
    from diffusers import FluxTransformer2DModel

    small = {
        "num_layers": 1, "num_single_layers": 2, "num_attention_heads": 1, "attention_head_dim": 64,
        "in_channels": 16, "joint_attention_dim": 64, "pooled_projection_dim": 32,
        "axes_dims_rope": (16, 24, 24),
    }  # fmt: skip
    picture, text, channels, width, pooled = (12, 4, 16, 64, 32) if toy else (4096, 512, 64, 4096, 768)

    def build() -> nn.Module:
        model = FluxTransformer2DModel(guidance_embeds=True, **(small if toy else {}))
        return fused(model)

    def inputs(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        draw = _drawer(device, dtype)
        return {
            "hidden_states": draw(1, picture, channels), "encoder_hidden_states": draw(1, text, width),
            "pooled_projections": draw(1, pooled), "timestep": torch.tensor([0.5], device=device),
            "guidance": torch.tensor([3.5], device=device), "img_ids": torch.zeros(picture, 3, device=device),
            "txt_ids": torch.zeros(text, 3, device=device), "return_dict": False,
        }  # fmt: skip

    def compile_(model: Any, backend: str) -> None:
        for block in [*model.transformer_blocks, *model.single_transformer_blocks]:
            block.compile(backend=backend)

    return Size("flux", build, inputs, compile_, True)


def sdxl(toy: bool) -> Size:
    """SDXL's U-Net: a 128x128 latent, batch 2, 77 text tokens."""
    from diffusers import UNet2DConditionModel

    small = {"block_out_channels": (32, 64, 64), "transformer_layers_per_block": [1, 1, 1],
             "norm_num_groups": 8,
             "attention_head_dim": [2, 2, 2], "cross_attention_dim": 64, "addition_time_embed_dim": 8,
             "projection_class_embeddings_input_dim": 64}  # fmt: skip
    side, tokens, width, pooled = (16, 5, 64, 16) if toy else (128, 77, 2048, 1280)

    def build() -> nn.Module:
        from benchmarks.svdquant_seconds import sdxl as full

        if not toy:
            return fused(full()).to(memory_format=torch.channels_last)
        blocks = {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        }
        model = UNet2DConditionModel(
            sample_size=side, addition_embed_type="text_time", use_linear_projection=True, **small, **blocks
        )
        return fused(model).to(memory_format=torch.channels_last)

    def inputs(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        draw = _drawer(device, dtype)
        more = {"text_embeds": draw(2, pooled), "time_ids": torch.zeros(2, 6, device=device, dtype=dtype)}
        return {
            "sample": draw(2, 4, side, side).to(memory_format=torch.channels_last),
            "timestep": torch.tensor(500.0, device=device), "encoder_hidden_states": draw(2, tokens, width),
            "added_cond_kwargs": more, "return_dict": False,
        }  # fmt: skip

    def compile_(model: Any, backend: str) -> None:
        torch._dynamo.config.recompile_limit = 64  # sizes of feature maps, each compiled for itself
        for block in model.modules():
            if type(block).__name__ in BLOCKS:
                block.compile(backend=backend, dynamic=False)
            elif type(block).__name__ == "Transformer2DModel":  # its blocks one by one: there are up to ten
                block.norm.forward = torch.compile(group_norm(block.norm), backend=backend, dynamic=False)

    return Size("sdxl", build, inputs, compile_, False, wide=3.0)


SIZES: dict[str, Callable[[bool], Size]] = {"flux": flux, "sdxl": sdxl}


def _drawer(device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda *size: torch.randn(*size, generator=generator).to(device, dtype)


@torch.no_grad()
def time_size(
    size: Size,
    device: torch.device,
    backend: str,
    toy: bool,
    keep: Callable[[dict[str, Any]], None],
    threads: int = THREADS,
) -> None:
    """Time a model's engines one after the other; `keep` receives each row, its "kernels" a table."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = size.build().eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)
    least, inputs = (16 if toy else SMALLEST), size.inputs(device, dtype)

    def modulation(name: str, layer: Any) -> bool:
        return layer.in_features >= least and any(part in name for part in ("norm", "time_emb_proj"))

    def large(name: str, layer: Any) -> bool:
        inside = any(part in name for part in ("blocks.", "mid_block."))
        fits = layer.in_features >= least and layer.in_features % 16 == 0 and layer.out_features % 16 == 0
        return inside and fits and not modulation(name, layer)

    def wide(name: str, layer: Any) -> bool:
        return large(name, layer) and layer.out_features >= size.wide * layer.in_features

    def narrow(name: str, layer: Any) -> bool:
        return modulation(name, layer) or (large(name, layer) and not wide(name, layer))

    first, exact = timed(model, size, inputs, device, backend)
    keep({"model": size.name, "engine": "bf16", "bytes": tensor_bytes(model), "ratio": "1.000", **first})
    base = first["ms"]

    def row(engine: str, note: str) -> None:
        found, out = timed(model, size, inputs, device, backend)
        apart = ((out.double() - exact.double()).norm() / exact.double().norm()).item()
        keep({"model": size.name, "engine": engine, "bytes": tensor_bytes(model), "note": note,
              "ratio": f"{base / found['ms']:.3f}", "distance": f"{apart:.2e}", **found})  # fmt: skip

    held = {name: layer for _, _, name, layer in _linears(model)}
    if size.float8 and device.type == "cuda":
        count = to_float8_(model, large)
        row("float8, row-wise, torch._scaled_mm", f"{count} layers")
        for parent, child, name in list(_places(model, held)):
            parent._modules[child] = held[name]
    held.clear()
    counts = to_native_(model, wide, narrow, convolutions=size.name == "sdxl")
    ready = prepare_native_(model, dtype)
    first = Counter(wire_(model).words.values())
    words = "".join(f", {count} with {what} first" for what, count in first.items())
    if device.type == "cuda" and threads:
        with only_built(threads):
            model(**inputs)
    rule = f", W4A16 where outputs are fewer than {size.wide:g} times the inputs" if size.wide else ""
    mixed = " and W4A16" if size.wide else ""
    row(f"W4A4 fp8 rank 32{mixed}, native", f"{counts}, {ready} native{words}{rule}")


def _linears(model: nn.Module) -> Any:
    from benchmarks.whole_engines import named_layers

    return named_layers(model, nn.Linear)


def _places(model: nn.Module, held: dict[str, Any]) -> Any:
    modules = dict(model.named_modules())
    for name in held:
        parent, _, child = name.rpartition(".")
        yield modules[parent], child, name


def timed(
    model: nn.Module,
    size: Size,
    inputs: dict[str, Any],
    device: torch.device,
    backend: str,
) -> tuple[dict[str, Any], Tensor]:
    """Compile, capture and time a forward: medians in ms, bytes, and the first output."""
    from quant.layers.native.graphs import graphed

    began = time.perf_counter()
    torch._dynamo.reset()
    size.compile(model, backend)
    out = model(**inputs)[0].clone()
    held = settle(device)
    row: dict[str, Any] = {"compile_s": round(time.perf_counter() - began, 1), "allocated": held}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    row["ms_launched"] = round(median_ms(lambda: model(**inputs), device), 3)
    row["peak"] = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    with graphed(model) if device.type == "cuda" else nullcontext():
        row["ms"] = round(median_ms(lambda: model(**inputs), device), 3)
        if device.type == "cuda":
            row["kernels"] = gpu_times(lambda: model(**inputs))
    return row, out


def median_ms(call: Callable[[], Any], device: torch.device) -> float:
    """Median time of a call in ms."""
    times = []
    for index in range(REPEATS + 2 if device.type == "cuda" else 3):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
            found = start.elapsed_time(end)
        else:
            began = time.perf_counter()
            call()
            found = 1e3 * (time.perf_counter() - began)
        if index > 1:
            times.append(found)
    return sorted(times)[len(times) // 2]


COLUMNS = (
    "model", "engine", "ms", "ratio", "ms_launched", "bytes", "allocated", "peak", "distance", "compile_s",
    "device", "torch", "triton", "commit", "note",
)  # fmt: skip


def environment(device: torch.device) -> dict[str, str]:
    """Device, versions and commit of every row."""
    from quant.about import versions

    found = versions(("torch", "triton"))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {"device": name, **{key: str(value) for key, value in found.items()}, "commit": commit()}


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows for reading."""
    others = {row["model"]: row["commit"] for row in rows if row["commit"] != rows[0]["commit"]}
    more = "".join(f" {model}: commit {commit}." for model, commit in others.items())
    head = (
        f"{place(rows[0])}{more} Random weights rounded to nearest beside a branch of rank 32: time and "
        "memory only. Median ms of a forward, compiled, as a CUDA graph; ratio: bf16 over it; GB of weights "
        "that the forward reads."
    )
    cells = [
        [r["model"], r["engine"], r["ms"], r["ratio"], r["ms_launched"], f"{int(r['bytes']) / 1e9:.2f}",
         f"{int(rows_bytes(rows, r)) / int(r['bytes']):.2f}", r.get("note", "")] for r in rows
    ]  # fmt: skip
    titles = ["model", "engine", "ms", "ratio", "ms without graph", "GB", "times less", ""]
    return "\n".join([head, "", *table(titles, [[str(c) for c in row] for row in cells])]) + "\n"


def place(row: dict[str, Any]) -> str:
    """Where a row was measured, as a sentence."""
    return f"{row['device']}, torch {row['torch']}, triton {row['triton']}, commit {row['commit']}."


def rows_bytes(rows: list[dict[str, Any]], row: dict[str, Any]) -> int:
    """Bytes of the same model in 16 bit."""
    return next(int(r["bytes"]) for r in rows if r["model"] == row["model"] and r["engine"] == "bf16")


def main(arguments: list[str] | None = None) -> int:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_models", description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(SIZES), choices=SIZES)
    parser.add_argument("--out", type=Path, required=True, help="NAME of NAME.csv and NAME.md")
    parser.add_argument(
        "--threads", type=int, default=THREADS, help="kernels built side by side; 0: at their first launch"
    )
    parser.add_argument("--toy", action="store_true", help="tiny models on the CPU")
    options = parser.parse_args(arguments)
    if options.threads < 0:
        parser.error(f"--threads must be 0 or more, got {options.threads}")
    if not options.toy and not torch.cuda.is_available():
        return show(
            HardwareError("whole_models: timing needs a CUDA device, and there is none; --toy runs anywhere")
        )
    device = torch.device("cpu" if options.toy else "cuda")
    rows: list[dict[str, Any]] = []
    launches: list[dict[str, Any]] = []
    shared, began = environment(device), time.monotonic()

    def keep(row: dict[str, Any]) -> None:
        found = row.pop("kernels", [])
        launches.extend({"model": row["model"], "engine": row["engine"], **one, **shared} for one in found)
        if launches:
            write_csv(options.out.with_name(f"{options.out.name}-kernels.csv"), launches)
        rows.append({**row, **shared})
        write_csv(options.out.with_suffix(".csv"), rows)
        write_text(options.out.with_suffix(".md"), markdown(rows))
        shown = ", ".join(f"{key} {row[key]}" for key in COLUMNS if key in row)
        sys.stdout.write(f"{time.monotonic() - began:6.1f} s  {shown}\n")
        sys.stdout.flush()

    for name in options.models:
        backend = "aot_eager" if options.toy else "inductor"
        time_size(SIZES[name](options.toy), device, backend, options.toy, keep, options.threads)
        settle(device)
    return 0


if __name__ == "__main__":
    sys.exit(main())
