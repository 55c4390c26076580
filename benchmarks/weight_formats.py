"""Why 4-bit floats beat 4-bit integers on one denoiser and not on the other: the tails of weights in a group.

Both formats round the same weights to nearest with one scale for 64 channels. A float's steps grow towards
the largest weight, an integer's do not, so which is closer depends on how many weights lie near the largest:
on the excess kurtosis inside a group (0 for a Gaussian, -1.2 for a uniform density).

    python -m benchmarks.weight_formats --out benchmarks/results/weight-formats.csv
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kurtosis

from benchmarks.files import write_csv

GROUP = 64


def layers(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Signal over noise of both formats, dB, and the mean kurtosis inside groups, for every 4-bit layer."""
    import quant
    from quant.methods.rtn import RtnConfig

    found = []
    for name in ("integer", "float"):
        config = RtnConfig(weight_bits=4, weight_group=GROUP, weight_format=name)
        ledger = quant.quantize_(copy.deepcopy(model), config)
        found.append({r.name: r for r in ledger.layers if not r.skipped and r.weight and r.weight.bits == 4})
    modules = dict(model.named_modules())
    rows = []
    for name in found[0]:
        weight: Any = modules[name].weight
        flat = weight.detach().float().movedim(1, -1).reshape(-1, weight.shape[1])
        whole = flat.shape[1] // GROUP * GROUP
        if not whole:
            continue
        tails = kurtosis(flat[:, :whole].reshape(-1, GROUP).numpy(), axis=1).mean()
        integer, floating = (ledger[name].weight_sqnr_db for ledger in found)
        rows.append({"layer": name, "integer_db": integer, "float_db": floating, "kurtosis": float(tails)})
    return rows


def main() -> None:
    """Measure both denoisers and write CSV."""
    from lab import zoo

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    made = []
    for name in ("dit-64", "unet-64"):
        rows = layers(zoo.load(name))
        gain = np.array([row["float_db"] - row["integer_db"] for row in rows])
        tails = np.array([row["kurtosis"] for row in rows])
        made.append(
            {
                "model": name,
                "group": GROUP,
                "layers": len(rows),
                "float_minus_integer_db": round(float(gain.mean()), 3),
                "kurtosis": round(float(tails.mean()), 3),
                "correlation": round(float(np.corrcoef(gain, tails)[0, 1]), 3),
            }
        )
    write_csv(given.out, made)


if __name__ == "__main__":
    main()
