"""The gate: full precision drawn twice at the same seed must be the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lab.compare.measuring import PSNR_CAP, SQNR_CAP, Measured

PERFECT = {
    "psnr_db": PSNR_CAP,
    "ssim": 1.0,
    "st_lpips": 0.0,
    "latent_rel_l2": 0.0,
    "latent_sqnr_db": SQNR_CAP,
}


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


def same_seed(measured: Sequence[Measured]) -> Gate:
    """Full precision against itself must be exactly perfect, at every seed.

    Parameters
    ----------
    measured : sequence of Measured
        The full-precision model, drawn again after its own reference; one a seed.
    """
    wrong = [f"seed {one.seed}: {fault}" for one in measured for fault in _faults(one)]
    return Gate(
        "same seed, same picture", "full precision against itself exactly perfect in every measure",
        "; ".join(wrong) or f"no difference in any picture, latent or prediction ({len(measured)} seeds)",
        bool(measured) and not wrong,
    )  # fmt: skip


def _faults(one: Measured) -> list[str]:
    out = [
        f"{name} from {one.arrays[name].min():.6g} to {one.arrays[name].max():.6g}, not {value:g}"
        for name, value in PERFECT.items()
        if name in one.arrays and np.abs(one.arrays[name] - value).max() > (1e-12 if name == "ssim" else 0)
    ]
    out += [f"{c} up to {one.curves[c].max():.3g}" for c in ("growth", "noise_mse") if one.curves[c].any()]
    return out + [f"{k} = {v:.3g}" for k, v in one.numbers.items() if k.startswith("FD(") and abs(v) > 1e-5]
