"""Gates: what must come out if a comparison's meter works (quality of the measuring, not of any recipe).

The one that every comparison has, "same seed, same picture", is in `lab.compare.results`. These need faults
planted on purpose, and minutes:

    python -m benchmarks.gates dit-64 --n 256 --out gates.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch import Tensor

from benchmarks import faults
from benchmarks.files import write_csv
from brainit.metrics import tensors
from kernels.checkout import commit
from lab.compare.about import hardware
from lab.compare.bench import Bench, PanelSettings, open_bench
from lab.compare.measuring import (
    Measured,
    Reference,
    measure,
    measure_null,
    reference,
    set_distances,
)
from lab.compare.networks import DOMAIN, LITE0
from lab.compare.recipes import OTHER_SEED
from lab.compare.results import Gate
from lab.metrics.clips import PSNR_CAP
from lab.zoo.exact import exact_arithmetic

ENOUGH = 64
"""Pictures from which a fault has to leave the null; with fewer it has to leave the unchanged pictures."""
_SETS = tuple(f"{kind}({layer})" for layer in (LITE0, DOMAIN) for kind in ("KID", "FD"))
Tick = Callable[[str], None]


def all_gates(model: str, settings: PanelSettings, device: str, tick: Tick = lambda what: None) -> list[Gate]:
    """Open a shipped denoiser and run all gates at seed 0, in the arithmetic of a comparison."""
    with exact_arithmetic(device):
        bench = open_bench(model, settings, device)
        ref = reference(bench, 0)
        return run_gates(bench, ref, measure_null(bench, OTHER_SEED, ref), tick)


def run_gates(bench: Bench, ref: Reference, null: Measured, tick: Tick = lambda what: None) -> list[Gate]:
    """Run all gates at one seed.

    Parameters
    ----------
    null : Measured
        From `measure_null`.
    tick : callable
        Called with what comes next, for progress.
    """
    gates = [other_seed(null)]
    if ref.pictures is not None:
        tick("gates: faults in pictures")
        gates += picture_gates(bench, ref, null)
    tick("gates: bits")
    return [*gates, *model_gates(bench, ref, tick)]


def other_seed(null: Measured) -> Gate:
    """Full precision with other noise must be inside the null and far from perfect in pairs."""
    wrong, said = [], []
    for name in _SETS:
        value, high = null.numbers.get(name), null.numbers.get(f"{name}.high")
        if value is None or high is None:
            continue
        said.append(f"{name} {value:.3g}, null up to {high:.3g}")
        if value > high:
            wrong.append(name)
    error = float(null.arrays["latent_rel_l2"].mean())
    said.append(f"latents differ by {error:.2f} of their norm")
    if error < 0.1:
        wrong.append("other noise gave nearly the same latents")
    return Gate(
        "full precision, other seed", "set distances within the null; pairs far from equal",
        "; ".join(said), not wrong,
    )  # fmt: skip


def picture_gates(bench: Bench, ref: Reference, null: Measured) -> list[Gate]:
    """Noise and blur in order of strength, and faults outside the null."""
    assert ref.pictures is not None
    same = _picture_scores(bench, ref.pictures, ref)
    noise = [_picture_scores(bench, faults.noisy(ref.pictures, level), ref) for level in faults.NOISE]
    blur = [_picture_scores(bench, faults.blurred(ref.pictures, sigma), ref) for sigma in faults.BLUR]
    swap = _picture_scores(bench, faults.swapped(ref.pictures), ref)
    levels = "0 < " + " < ".join(f"{n}/255" for n in faults.NOISE)
    sigmas = "0 < " + " < ".join(f"{s:g} px" for s in faults.BLUR)
    gates = [
        _ordered("noise in pictures", levels, [same, *noise]),
        _ordered("blur of pictures", sigmas, [same, *blur]),
    ]
    marks = {"noise 12/255": noise[2], "blur 1 px": blur[1], "channel swap": swap}
    enough = len(ref.pictures) >= ENOUGH
    edge = {n: null.numbers.get(f"{n}.high", np.inf) if enough else same.get(n, np.inf) for n in _SETS}
    missed, said = [], []
    for what, scores in marks.items():
        over = [n for n in _SETS if n in scores and scores[n] > edge[n]]
        said.append(f"{what}: {len(over)} of {sum(n in scores for n in _SETS)} set distances, "
                    f"PSNR {scores['psnr_db']:.1f} dB")  # fmt: skip
        if scores["psnr_db"] >= PSNR_CAP or (any(n in scores for n in _SETS) and not over):
            missed.append(what)
    gates.append(
        Gate(
            "faults leave the null",
            "each in at least one set distance"
            + ("" if enough else f" (fewer than {ENOUGH} pictures: beyond the unchanged ones)"),
            "; ".join(said),
            not missed,
        )
    )
    return gates


def model_gates(bench: Bench, ref: Reference, tick: Tick) -> list[Gate]:
    """Fewer weight bits in order, and a silenced block worse than 8 bits."""
    import quant
    from quant.methods.rtn.config import RtnConfig

    scores = []
    for bits in faults.WEIGHT_BITS:
        tick(f"gates: {bits}-bit weights")
        model = bench.fresh()
        quant.quantize_(model, RtnConfig(weight_bits=bits, activation_bits=None), keep_originals=False)
        scores.append(_model_scores(measure(bench, model, "", ref, {})))
    tick("gates: a silenced block")
    model = bench.fresh()
    block = faults.silence_block_(model)
    silent = _model_scores(measure(bench, model, "", ref, {}))
    worse = [k for k in scores[0] if not _worse(k, silent[k], scores[0][k])]
    words = " < ".join(f"W{bits}" for bits in faults.WEIGHT_BITS)
    return [
        _ordered("bits of weights", f"error {words}", scores),
        Gate(
            "a silenced block", f"{block} set to zero: worse than 8-bit weights in every measure",
            _values("error", [scores[0], silent]) if not worse else f"not worse in {', '.join(worse)}",
            not worse,
        ),
    ]  # fmt: skip


def _picture_scores(bench: Bench, images: Tensor, ref: Reference) -> dict[str, float]:
    assert ref.pictures is not None
    images = tensors.eight_bit(images)
    out = {
        "psnr_db": float(tensors.psnr(images, ref.pictures, PSNR_CAP).mean()),
        "ssim": float(tensors.ssim(images, ref.pictures).mean()),
    }
    perceptual = bench.networks.perceptual(images, ref.pictures)
    if perceptual is not None:
        out["st_lpips"] = float(perceptual.mean())
    return out | set_distances(bench.networks.features(images), ref.features)


def _model_scores(one: Measured) -> dict[str, float]:
    out: dict[str, float] = {
        k: float(one.arrays[k].mean()) for k in ("latent_rel_l2", "psnr_db") if k in one.arrays
    }
    return {"noise_nmse": float(np.mean(one.curves["noise_nmse"])), **out}


def _worse(name: str, value: float, than: float) -> bool:
    return value < than if name in ("psnr_db", "ssim", "latent_sqnr_db") else value > than


def _ordered(name: str, expected: str, scores: Sequence[dict[str, float]]) -> Gate:
    wrong = [key for key in scores[0] if not all(_worse(key, b[key], a[key]) for a, b in pairwise(scores))]
    found = f"out of order: {_some(wrong, scores)}" if wrong else _values("in order", scores)
    return Gate(name, f"{expected}, in every measure", found, not wrong)


def _values(word: str, scores: Sequence[dict[str, float]]) -> str:
    key = next(iter(scores[0]))
    return f"{word} in {len(scores[0])} measures; {_some([key], scores)}"


def _some(keys: Sequence[str], scores: Sequence[dict[str, float]]) -> str:
    return "; ".join(f"{k} " + ", ".join(f"{s[k]:.3g}" for s in scores) for k in keys)


def main() -> None:
    """Run all gates on a shipped denoiser and write a row each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="unet-64 or dit-64")
    parser.add_argument("--n", type=int, default=256, help="pictures")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="CSV file")
    given = parser.parse_args()
    settings = PanelSettings(n=given.n, seeds=1, steps=given.steps)
    found = all_gates(given.model, settings, given.device)
    origin = {"model": given.model, "n": given.n, "commit": commit(), "device": hardware(given.device)}
    write_csv(given.out, [gate.to_dict() | origin for gate in found])
    if not all(gate.passed for gate in found):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
