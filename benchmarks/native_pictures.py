"""Pictures through the kernels beside the same pictures simulated: samples, and what a brain decodes to.

    python -m benchmarks.native_pictures --out benchmarks/results/native-pictures-h200

Each shipped denoiser is quantized once; then the simulated layers and the kernels draw from the same noise
and conditions: tokens of pictures, and tokens that ridge predicts from a simulated subject's voxels. Both
ways run the same codes, but a code near a rounding edge flips with the last bit of its input, and the flips
of one layer are the input of the next. So no arithmetic in 16 bits can be asked to be nearer to the simulated
model than that one is to itself once its layers round their outputs to bfloat16: the control, which the same
run draws on the same device. The exit code is 1 if the kernels are further off than `TOLERANCE` allows beside
it. A row also says how far quantizing itself moves the pictures.

`EARLIER` is the tolerance that the study began with. It was given up after results were seen, because the
control misses it as well; the table says of every row whether the kernels, and the control, would keep it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import quant
from benchmarks.files import write_csv
from benchmarks.markdown import table
from benchmarks.whole_models import environment, place
from lab import zoo
from lab.errors import show
from lab.files import write_text
from lab.zoo.recordings import order, stimulus_tokens, zoo_recording
from lab.zoo.sampling import SamplerSettings, draw_noise, sample
from quant.errors import HardwareError
from quant.layers.install import quant_layers
from quant.layers.native.replays import REPLAYED, launched
from quant.layers.native.ways import natively, refuse_device, summary
from quant.recipes import resolve

TOLERANCE = {"forward": 1.25, "pictures": 1.0}
"""One prediction: so many times the control's distance; pictures: so many dB below its PSNR, at most."""
EARLIER = {"forward": 0.03, "pictures": 30.0}
"""What was asked first: one prediction within 3 %, pictures at 30 dB at least."""
SHORT = "+samples=8+steps=4+rows=128+smooth_points=4+iterations=4"
"""Less calibration than the preset's: what is compared is two ways of running the same codes."""
RECIPES = (
    f"svdquant-w4a4-native{SHORT}",
    f"svdquant-w4a4-int-scale+input_search=0{SHORT}",
    "rtn-w8a8",
)
RECORDED, STEPS = 16, 8
PEAK_DB = 60.0


def brain_tokens(n: int, device: str, file: Path | None) -> Tensor:
    """Tokens (n, 17, 192) that ridge predicts from the test trials of the simulated subject.

    With a file they are read from it, or written to it if it is not there: a machine that only draws needs no
    subject.
    """
    from safetensors.torch import load_file, save_file

    if file is None or not file.is_file():
        tokens = _predicted(device)
        if file is None:
            return tokens[:n]
        save_file({"tokens": tokens}, file)
    return load_file(file)["tokens"][:n]


def _predicted(device: str) -> Tensor:
    from lab.decoding.data import open_subjects
    from lab.decoding.settings import ReconstructConfig
    from lab.decoding.structure import baselines
    from lab.progress import silent

    subject = open_subjects(ReconstructConfig.model_validate({"train_on": "one"}), silent).subject
    train, test = (subject.part(split).mean_over_repeats() for split in ("train", "test"))
    return torch.from_numpy(baselines(train, test, device=device)["ridge_tokens"]).contiguous()


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Peak signal to noise of pictures in 0..1, each, in dB."""
    error = (one - other).double().square().flatten(1).mean(1)
    return (-10 * error.clamp(min=1e-30).log10()).clamp(max=PEAK_DB)


@contextmanager
def rounding(model: nn.Module) -> Iterator[None]:
    """Round the outputs of quantized layers to bfloat16, in a ``with``."""

    def rounded(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.bfloat16().to(output.dtype)

    handles = [layer.register_forward_hook(rounded) for layer in quant_layers(model).values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def compare(
    name: str,
    recipe: str,
    conditions: dict[str, Tensor],
    steps: int,
    device: str,
    keep: Callable[[dict[str, Any]], None],
) -> bool:
    """Quantize a denoiser, draw both ways and the control, keep rows; whether both ways agree."""
    denoiser, autoencoder, null = (
        zoo.load(name, device),
        zoo.load("autoencoder-64", device),
        zoo.null_tokens(name),
    )
    settings = SamplerSettings(steps, 3.0)

    def pictures(model: nn.Module, tokens: Tensor) -> tuple[Tensor, float]:
        began = time.perf_counter()
        latents = sample(model, tokens, null, draw_noise(len(tokens), 7), settings)
        seconds = time.perf_counter() - began
        with torch.no_grad():
            return autoencoder.decode(latents.to(device)).float().clamp(0, 1).mul(255).round().div(
                255
            ), seconds

    full = {key: pictures(denoiser, tokens)[0] for key, tokens in conditions.items()}
    store = zoo_recording(name, n=RECORDED, steps=steps, guidance=3.0, device=device)
    ledger = quant.quantize_(denoiser, recipe, trajectories=store, keep_originals=False)
    good = True
    some = next(iter(conditions.values()))
    x = draw_noise(len(some), 7).to(device)
    times = torch.full((len(some),), 500.0, device=device)

    def forward() -> Tensor:
        with torch.no_grad():
            return denoiser(x, timestep=times, encoder_hidden_states=some.to(device)).sample.double()

    before = forward()
    drawn = {key: pictures(denoiser, tokens) for key, tokens in conditions.items()}
    with rounding(denoiser):
        moved = ((forward() - before).norm() / before.norm()).item()
        control = {
            key: psnr(pictures(denoiser, tokens)[0], drawn[key][0]).mean().item()
            for key, tokens in conditions.items()
        }
    rows = {
        key: {
            "model": name, "recipe": recipe.removesuffix(SHORT), "conditions": key, "n": len(tokens),
            "steps": steps, "control_forward": f"{moved:.2e}", "psnr_control": f"{control[key]:.2f}",
            "psnr_quantized_full": f"{psnr(drawn[key][0], full[key]).mean():.2f}",
        }
        for key, tokens in conditions.items()
    }  # fmt: skip
    with natively(denoiser) as ways:
        words, now = summary(ways), forward()
        paths = sorted({str(layer.last_path) for layer in quant_layers(denoiser).values()})
        apart = ((now - before).norm() / before.norm()).item()
        again = forward()
        good &= apart <= TOLERANCE["forward"] * moved and torch.equal(now, again)
        for key, tokens in conditions.items():
            with launched(denoiser):
                eager, seconds = pictures(denoiser, tokens)
            pictures(denoiser, tokens)  # captures
            replayed, fast = pictures(denoiser, tokens)
            agreed = psnr(eager, drawn[key][0])
            near = agreed.mean().item() >= control[key] - TOLERANCE["pictures"]
            same = torch.equal(eager, replayed) and ledger.launches == REPLAYED
            good &= near and same
            keep({
                **rows[key], "forward": f"{apart:.2e}", "psnr_native_simulated": f"{agreed.mean():.2f}",
                "within": bool(near and apart <= TOLERANCE["forward"] * moved),
                "earlier_native": _earlier(apart, agreed.mean().item()),
                "earlier_control": _earlier(moved, control[key]),
                "psnr_least": f"{agreed.min():.2f}",
                "graph_equal": bool(same),
                "repeat_equal": bool(torch.equal(now, again)), "s_simulated": round(drawn[key][1], 3),
                "s_native": round(seconds, 3), "s_graph": round(fast, 3),
                "bytes": ledger.bytes_after, "layers": words, "paths": "; ".join(paths),
            })  # fmt: skip
    return good


def _earlier(forward: float, pictures: float) -> bool:
    return forward <= EARLIER["forward"] and pictures >= EARLIER["pictures"]


def markdown(rows: list[dict[str, Any]]) -> str:
    """Rows for reading."""
    head = (
        f"{place(rows[0])} {rows[0]['steps']} Euler steps, guidance 3, the same noise both ways. Tolerance: "
        f"a prediction at most {TOLERANCE['forward']:g} times as far from the simulated one as the control, "
        f"pictures at most {TOLERANCE['pictures']:g} dB below it, graph replay and a second run equal to the "
        "byte. Control: the simulated model whose quantized layers round their outputs to bfloat16, which "
        "flips as many codes; drawn in the same run. The study began with another tolerance (a prediction "
        f"within {EARLIER['forward']:.0%}, pictures at {EARLIER['pictures']:g} dB), given up after results "
        "were seen, because the control misses it too; the last columns say who keeps that one. Recipes with "
        "less calibration than their presets."
    )
    titles = {
        "model": "model", "recipe": "recipe", "conditions": "conditions", "forward": "one prediction",
        "control_forward": "control", "psnr_native_simulated": "native to simulated, dB",
        "psnr_least": "least",
        "psnr_control": "control, dB", "within": "within the tolerance",
        "psnr_quantized_full": "simulated to full precision, dB", "s_simulated": "s simulated",
        "s_native": "s native", "s_graph": "s graph",
        "layers": "layers", "earlier_native": "earlier tolerance", "earlier_control": "control, earlier one",
    }  # fmt: skip
    cells = [[str(row.get(key, "")) for key in titles] for row in rows]
    return "\n".join([head, "", *table(list(titles.values()), cells)]) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.native_pictures", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(zoo.DECODERS), choices=zoo.DECODERS)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--n", type=int, default=16, help="pictures of each kind")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the sampler")
    parser.add_argument("--tokens", type=Path, help="file of tokens predicted before; written if missing")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True, help="NAME of NAME.csv and NAME.md")
    options = parser.parse_args(arguments)
    for name, count in (("n", options.n), ("steps", options.steps)):
        if count < 1:
            parser.error(f"--{name} must be 1 or more, got {count}")
    try:
        for recipe in options.recipes:  # before an hour of the others
            resolve(recipe)
        refuse_device(options.device)
    except (ValueError, HardwareError) as error:
        return show(error)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows: list[dict[str, Any]] = []
    shared = environment(torch.device(options.device))

    def keep(row: dict[str, Any]) -> None:
        rows.append({**row, **shared})
        write_csv(options.out.with_suffix(".csv"), rows)
        write_text(options.out.with_suffix(".md"), markdown(rows))
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()

    conditions = {
        "pictures": stimulus_tokens(order(start=64)[: options.n], options.device),
        "brain (ridge, simulated subject)": brain_tokens(options.n, options.device, options.tokens),
    }
    good = [
        compare(name, recipe, conditions, options.steps, options.device, keep)
        for name in options.models
        for recipe in options.recipes
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
