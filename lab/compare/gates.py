"""Gates: what must come out if the meter works (quality of the measuring, not of any recipe)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from lab.compare import faults, measures
from lab.compare.bench import Bench
from lab.compare.measuring import Part, Reference, measure, null_part, set_distances
from lab.compare.networks import DOMAIN, LITE0
from lab.compare.recipes import FULL, OTHER_SEED

ALMOST = 1e-9
ENOUGH = 64
"""Pictures from which a fault has to leave the null; with fewer it has to leave the unchanged pictures."""
_SETS = tuple(f"{kind}({layer})" for layer in (LITE0, DOMAIN) for kind in ("KID", "FD"))
Tick = Callable[[str], None]


@dataclass(frozen=True)
class Gate:
    """One thing that must hold."""

    name: str
    expected: str
    found: str
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def run_gates(bench: Bench, ref: Reference, null: Part, tick: Tick = lambda what: None) -> list[Gate]:
    """Run all gates at one seed.

    Parameters
    ----------
    null : Part
        From `null_part`.
    tick : callable
        Called with what comes next, for progress.
    """
    tick("gate: same seed")
    gates = [same_seed(measure(bench, bench.model, FULL, ref, {})), other_seed(null)]
    if ref.pictures is not None:
        tick("gates: faults in pictures")
        gates += picture_gates(bench, ref, null)
    tick("gates: bits")
    return [*gates, *model_gates(bench, ref, tick)]


def same_seed(part: Part) -> Gate:
    """Full precision against itself must be exactly perfect."""
    perfect = {
        "psnr_db": measures.PSNR_CAP, "ssim": 1.0, "st_lpips": 0.0, "latent_rel_l2": 0.0,
        "latent_sqnr_db": measures.SQNR_CAP,
    }  # fmt: skip
    wrong = [
        f"{name} from {part.arrays[name].min():.6g} to {part.arrays[name].max():.6g}, not {value:g}"
        for name, value in perfect.items()
        if name in part.arrays and np.abs(part.arrays[name] - value).max() > (1e-12 if name == "ssim" else 0)
    ]
    wrong += [
        f"{c} up to {part.curves[c].max():.3g}" for c in ("growth", "noise_mse") if part.curves[c].any()
    ]
    wrong += [f"{k} = {v:.3g}" for k, v in part.numbers.items() if k.startswith("FD(") and abs(v) > 1e-5]
    return Gate(
        "full precision, same seed", "exactly perfect in every measure",
        "; ".join(wrong) or "no difference in any picture, latent or prediction", not wrong,
    )  # fmt: skip


def other_seed(null: Part) -> Gate:
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


def picture_gates(bench: Bench, ref: Reference, null: Part) -> list[Gate]:
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
        if scores["psnr_db"] >= measures.PSNR_CAP or (any(n in scores for n in _SETS) and not over):
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
    images = measures.eight_bit(images)
    out = {
        "psnr_db": float(measures.psnr(images, ref.pictures).mean()),
        "ssim": float(measures.ssim(images, ref.pictures).mean()),
    }
    perceptual = bench.networks.perceptual(images, ref.pictures)
    if perceptual is not None:
        out["st_lpips"] = float(perceptual.mean())
    return out | set_distances(bench.networks.features(images), ref.features)


def _model_scores(part: Part) -> dict[str, float]:
    out: dict[str, float] = {
        k: float(part.arrays[k].mean()) for k in ("latent_rel_l2", "psnr_db") if k in part.arrays
    }
    return {"noise_nmse": float(np.mean(part.curves["noise_nmse"])), **out}


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


__all__ = ["OTHER_SEED", "Gate", "null_part", "run_gates"]
