"""Seconds of drawing with shipped denoisers: full precision, simulated, and through the kernels.

    python -m benchmarks.native_seconds --out benchmarks/results/native-seconds-DEVICE

writes NAME.csv after every row, and NAME.md. The kernels are launched one by one, or come from CUDA graphs as
everything that draws has them (`quant.layers.native.replays`); both give the same bytes, or the exit code is
1. Full precision is timed as a graph, too: small models wait for Python with any arithmetic. ``--device cpu``
draws in full precision and simulated only, for tests; its times mean nothing.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import quant
from benchmarks.files import write_csv
from benchmarks.markdown import table
from benchmarks.native_pictures import RECIPES, RECORDED, SHORT
from benchmarks.whole_models import environment, place
from lab import zoo
from lab.errors import show
from lab.files import write_text
from lab.zoo.recordings import order, stimulus_tokens, zoo_recording
from lab.zoo.sampling import SamplerSettings, draw_noise, sample
from quant.errors import HardwareError
from quant.layers.install import state_of
from quant.layers.native.graphs import graphed
from quant.layers.native.replays import REPLAYED, launched
from quant.layers.native.ways import natively, refuse_device
from quant.recipes import resolve

TYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
"""Numbers outside of what is quantized."""
FULL = "full precision"
GUIDANCE = 2.0


class Way(NamedTuple):
    """One way of drawing.

    Attributes
    ----------
    numbers : str
        Of `TYPES`.
    what : str
        `FULL`, or the recipe.
    how : str
        Of full precision "launched" and "graph"; of a recipe "simulated" as well.
    """

    numbers: str
    what: str
    how: str


def timed(draw: Callable[[], Tensor], repeats: int) -> tuple[float, float, Tensor]:
    """Seconds of the first drawing, the median of later ones, and the latents."""
    seconds, out = [], torch.empty(0)
    for _ in range(1 + repeats):
        began = time.perf_counter()
        out = draw()  # ends on the CPU
        seconds.append(time.perf_counter() - began)
    return seconds[0], statistics.median(seconds[1:]), out


def measure(name: str, options: argparse.Namespace, keep: Callable[[Way, dict[str, Any]], None]) -> bool:
    """Time all ways of drawing with a denoiser; whether graphs gave the bytes of plain launches."""
    gpu, good = options.device == "cuda", True
    tokens, null = stimulus_tokens(order(start=64)[: options.n], options.device), zoo.null_tokens(name)
    noise, settings = draw_noise(options.n, 7), SamplerSettings(options.steps, GUIDANCE)

    def run(model: nn.Module, way: Way, within: AbstractContextManager[Any]) -> Tensor:
        with within:
            first, seconds, out = timed(lambda: sample(model, tokens, null, noise, settings), options.repeats)
        state = state_of(model)
        arithmetic = FULL if state is None else state.ledger.arithmetic
        keep(way, {"s": round(seconds, 4), "s_first": round(first, 3), "arithmetic": arithmetic})
        return out

    denoiser = zoo.load(name, options.device)
    for numbers, dtype in TYPES.items():
        model = copy.deepcopy(denoiser).to(dtype)
        run(model, Way(numbers, FULL, "launched"), nullcontext())
        if gpu:
            run(model, Way(numbers, FULL, "graph"), graphed(model))
    store = zoo_recording(name, n=RECORDED, steps=options.steps, guidance=GUIDANCE, device=options.device)
    for recipe in options.recipes:
        quantized, what = copy.deepcopy(denoiser), recipe.removesuffix(SHORT)
        quant.quantize_(quantized, recipe, trajectories=store, keep_originals=False)
        for numbers, dtype in TYPES.items():
            model = copy.deepcopy(quantized).to(dtype)
            run(model, Way(numbers, what, "simulated"), nullcontext())
            if not gpu:
                continue
            with natively(model):
                plain = run(model, Way(numbers, what, "launched"), launched(model))
                replayed = run(model, Way(numbers, what, "graph"), nullcontext())
                good &= torch.equal(plain, replayed) and _launches(model) == REPLAYED
    return good


def _launches(model: nn.Module) -> str:
    state = state_of(model)
    return "" if state is None else state.ledger.launches


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put beside each row how many times faster it is than full precision in bf16, both ways."""
    found = []
    for row in rows:
        base = {
            r["how"]: r["s"] for r in rows
            if (r["model"], r["numbers"], r["what"]) == (row["model"], "bf16", FULL)
        }  # fmt: skip
        ratios = {
            f"ratio_{how}": round(base[how] / row["s"], 3) for how in ("launched", "graph") if how in base
        }
        found.append({**row, **ratios})
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows for reading."""
    one = rows[0]
    head = (
        f"{place(one)} Seconds of drawing {one['n']} pictures at once, {one['steps']} Euler steps, guidance "
        f"{GUIDANCE:g}: median of {one['repeats']} after a first one, which prepares; that of a graph row "
        "only captures. Ratios: times faster than full precision in bf16 whose kernels are launched one by "
        "one, and as a CUDA graph, in the same run. No TF32. Recipes calibrate on less than their presets do."
    )
    titles = {
        "model": "model", "what": "what", "numbers": "other numbers", "how": "how", "s": "s",
        "s_first": "s first",
        "ratio_launched": "times bf16", "ratio_graph": "times bf16 as a graph", "arithmetic": "arithmetic",
    }  # fmt: skip
    cells = [[str(row.get(key, "")) for key in titles] for row in rows]
    return "\n".join([head, "", *table(list(titles.values()), cells)]) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.native_seconds", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(zoo.DECODERS), choices=zoo.DECODERS)
    parser.add_argument("--recipes", nargs="+", default=[RECIPES[0], RECIPES[2]])
    parser.add_argument("--n", type=int, default=64, help="pictures, in one batch up to 64")
    parser.add_argument("--steps", type=int, default=20, help="of the sampler")
    parser.add_argument("--repeats", type=int, default=5, help="drawings that the median is of")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path, required=True, help="NAME of NAME.csv and NAME.md")
    options = parser.parse_args(arguments)
    for name, least in (("n", 1), ("steps", 1), ("repeats", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} must be {least} or more, got {getattr(options, name)}")
    try:
        for recipe in options.recipes:
            resolve(recipe)
        if options.device == "cuda":
            refuse_device(options.device)
    except (ValueError, HardwareError) as error:
        return show(error)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows: list[dict[str, Any]] = []
    shared = {
        "n": options.n, "steps": options.steps, "repeats": options.repeats,
        **environment(torch.device(options.device)),
    }  # fmt: skip

    def keep_for(model: str) -> Callable[[Way, dict[str, Any]], None]:
        def keep(way: Way, found: dict[str, Any]) -> None:
            rows.append({"model": model, **way._asdict(), **found, **shared})
            shown = with_ratios(rows)
            write_csv(options.out.with_suffix(".csv"), shown)
            write_text(options.out.with_suffix(".md"), markdown(shown))
            sys.stdout.write(f"{shown[-1]}\n")
            sys.stdout.flush()

        return keep

    good = [measure(name, options, keep_for(name)) for name in options.models]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
