"""Export ten presets of a zoo denoiser from a small recording, or compare with such an export byte for byte.

A change of the house must not change what is written. Before it:

    python -m benchmarks.checkpoint_bytes --out GOLDEN

and after it, which prints one line for each preset and exits with 1 if any differs:

    python -m benchmarks.checkpoint_bytes --out NEW --golden GOLDEN
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

PRESETS = (
    "rtn-w4a4", "svdquant-w4a4", "svdquant-w4a4-int-scale", "lrq-dit-w4a4", "fp8-fp8", "fp4-fp8", "dgq-w4a6",
    "mixdq-w4a8", "mixdq-w8a8", "eda-dm-w4a8",
)  # fmt: skip
SHORT: dict[str, dict[str, Any]] = {
    "eda_dm": {"iterations": 12, "points": 24, "batch_size": 8},
    "lowbit_fp": {"iterations": 60, "samples": 4, "steps": 4, "rows": 128},
    "svdquant": {"samples": 4, "steps": 4, "rows": 256},
}
"""Little work where a method trains or searches; enough that every step of it runs."""


def main() -> None:
    """Export, and compare if there is something to compare with."""
    import quant
    from lab import zoo
    from lab.zoo.recordings import zoo_recording
    from quant.recipes import resolve

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--golden", type=Path, help="folder of an earlier --out; its recording is used again")
    parser.add_argument("--model", default="dit-64")
    parser.add_argument("--presets", nargs="*", default=list(PRESETS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    store = zoo_recording(given.model, (given.golden or given.out) / "recording", n=12, steps=6)
    different = 0
    for preset in given.presets:
        model = zoo.load(given.model)
        _, method, config = resolve(preset)
        config = config.model_copy(update=SHORT.get(method.name, {}))
        quant.quantize_(model, config, trajectories=store, seed=3)
        file = quant.export(model, given.out / f"{preset}.safetensors")
        if given.golden is not None:
            same = file.read_bytes() == (given.golden / file.name).read_bytes()
            different += not same
            print(f"{preset}: {'equal' if same else 'different'}", flush=True)
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
