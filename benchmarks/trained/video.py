"""The methods that claim video on the shipped video denoiser: QVGen, SVDQuant, LRQ-DiT, rounding.

    python -m benchmarks.trained.video --device cuda --jobs 15 --out runs/video

The comparison itself is ``brainlab compare video-dit`` in the folder ``--out``, which goes on after a stop;
the results go to ``--publish`` as video-dit.csv, .md and .webp (clips as strips of frames).
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.files import write_csv
from benchmarks.markdown import to_markdown
from benchmarks.orderings import Ordering, judge
from lab.compare.recipes import FULL
from lab.compare.results import pictures, rounded, stored
from lab.compare.statistics import Scores
from lab.files import write_text
from lab.images import write_picture
from lab.jobs.contract import Context
from lab.jobs.models.compare import Settings, run
from lab.progress import reporting
from lab.report.compare_pictures import grid

RESULTS = Path(__file__).parents[1] / "results" / "video"
MODEL = "video-dit"
STRIPS = 2
"""Clips of each recipe in the figure."""
POST_TRAINING = (
    "rtn-w4a4", "rtn-w4a4+weight_bits=3+activation_bits=3", "svdquant-w4a4", "svdquant-gptq-w4a4",
    "lrq-dit-w4a4", "lrq-dit-w3a4", "vidit-q-w4a4", "vidit-q-w3a4",
)  # fmt: skip


def trained(steps: int, rate: float) -> dict[str, str]:
    """Recipes of QVGen by what they are called below."""
    shared = how(steps, rate)
    return {
        "w4a4": f"qvgen-w4a4+{shared}", "w4a4, common": f"qvgen-w4a4+policy=common+{shared}",
        "none": f"qvgen-w3a3+helper=none+{shared}", "at once": f"qvgen-w3a3+helper=at-once+{shared}",
        "decay": f"qvgen-w3a3+{shared}",
    }  # fmt: skip


def how(steps: int, rate: float) -> str:
    """Write the settings that all trained recipes share; tables leave them out of the names."""
    return f"train_steps={steps}+look_every={max(1, steps // 4)}+rate_weight={rate:g}"


def claims(steps: int, rate: float) -> tuple[Ordering, ...]:
    """Orderings of the cards that speak of video."""
    q = trained(steps, rate)
    qvgen, lrq = "qvgen, section 5 (ablation in words)", "lrq-dit, section 6 (iv)"
    paired = [
        Ordering("qvgen-helper", "no helper < dropped at once < rank decay", qvgen, "increasing",
                 (q["none"], q["at once"], q["decay"])),
        Ordering("qvgen-bits", "W3A3 < W4A4", qvgen, "increasing", (q["decay"], q["w4a4"])),
        Ordering("qvgen-training", "rounding < trained, W3A3", "qvgen, section 1", "increasing",
                 (POST_TRAINING[1], q["decay"])),
        Ordering("qvgen-svdquant", "SVDQuant after training < QVGen, W4A4",
                 "qvgen, section 1 (CogVideoX-2B: 40.83 and 67.22 dynamic degree)", "increasing",
                 ("svdquant-w4a4", q["w4a4, common"])),
        Ordering("lrq-three", "ViDiT-Q < LRQ-DiT, W3A4", lrq, "increasing", ("vidit-q-w3a4", "lrq-dit-w3a4")),
        Ordering("lrq-four", "ViDiT-Q < LRQ-DiT, W4A4", lrq, "increasing", ("vidit-q-w4a4", "lrq-dit-w4a4")),
        Ordering("svdquant", "rounding < SVDQuant, W4A4", "svdquant, section 8", "increasing",
                 ("rtn-w4a4", "svdquant-w4a4")),
    ]  # fmt: skip
    moves = [
        replace(o, id=f"{o.id}-motion", says=f"{o.says}, by how it moves", metric="change_error")
        for o in paired[:4]
    ]  # fmt: skip
    return (*paired, *moves)


def main() -> None:
    """Compare, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=64, help="clips a seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500, help="of training; 0 leaves QVGen out")
    parser.add_argument("--rate", type=float, default=3e-4, help="of weights in training")
    parser.add_argument("--calibrate", type=int, default=320, help="clips to record")
    parser.add_argument("--sampler-steps", type=int, default=20)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder of the comparison")
    parser.add_argument("--publish", type=Path, default=RESULTS)
    given = parser.parse_args()
    qvgen = trained(given.steps, given.rate).values() if given.steps else ()
    recipes = (*qvgen, *POST_TRAINING)
    settings = Settings(
        model=MODEL, recipes=recipes, out=given.out, n=given.n, seeds=given.seeds,
        steps=given.sampler_steps, calibrate=given.calibrate, device=given.device, jobs=given.jobs, batch=64,
    )  # fmt: skip
    with reporting() as progress:
        result = run(settings, Context(report=progress)).model_dump()
    found = stored(given.out)
    about_training = f"+{how(given.steps, given.rate)}"
    result["about"]["command"] = shlex.join(["python", "-m", "benchmarks.trained.video", *sys.argv[1:]])
    result["orderings"] = rounded(judge(Scores(found), MODEL, claims(given.steps, given.rate)))
    shown = pictures(found)
    order = [row["recipe"] for row in result["rows"] if row["recipe"] in shown]
    given.publish.mkdir(parents=True, exist_ok=True)
    if FULL in shown:
        sheet = grid({name.replace(about_training, ""): shown[name][:STRIPS] for name in order})
        write_picture(sheet, given.publish / f"{MODEL}.webp", quality=80)
    write_csv(given.publish / f"{MODEL}.csv", result["rows"])
    title = "Quantized video denoiser: trained, and after training"
    alt = "The first clips of seed 0 as strips of frames, whatever they look like, best recipe first"
    page = to_markdown(result, f"{MODEL}.webp", title, alt).replace(about_training, "")
    trained_how = f"QVGen: {given.steps} steps, weights at {given.rate:g}, as `{about_training[1:]}`."
    note = trained_how if given.steps else "QVGen was not trained for this table: it takes a GPU."
    write_text(given.publish / f"{MODEL}.md", f"{page}\n{note}\n")


if __name__ == "__main__":
    main()
