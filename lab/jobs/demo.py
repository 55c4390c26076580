"""The demo: simulated subjects, decoded end to end by one network that all of them share."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from lab.decoding.settings import ReconstructConfig
from lab.jobs.reconstruct import reconstruct
from lab.progress import Progress, silent

SUBJECTS = ("sub-01", "sub-02", "sub-03", "sub-04")
_COLUMNS = (
    "pixcorr",
    "ssim",
    "two_way_pix",
    "ridge.pixcorr",
    "ridge.ssim",
    "fp.pixcorr",
    "paired_psnr_to_fp",
)


def demo_config(subject: str, out: Path) -> ReconstructConfig:
    """Return the settings of one simulated subject's run: few steps and one noise seed, for a laptop.

    Structure, strength and number of averaged samples are those that scored best in PixCorr and feature
    two-way among strengths 0.2, 0.4, 0.6 and 1, 2, 4 samples on left-out training trials of the first three
    subjects (`lab.jobs.tune`); a single picture at a greater strength is sharper and further from the truth.
    """
    return ReconstructConfig.model_validate(
        {
            "dataset": "simulated",
            "root": str(out / "data"),
            "subject": subject,
            "noise_seeds": 1,
            "steps": 8,
            "structure": "blend",
            "strength": 0.2,
            "n_samples": 4,
            "guidance": 1.0,
            "bootstrap": 1000,
        }
    )


def demo(out: Path, progress: Progress = silent) -> dict[str, Any]:
    """Make the small simulated subjects below ``out``, train on all of them, decode each, write the reports.

    Stopped, it goes on where it was. ``metrics.json`` below ``out`` holds every subject's scores, the seconds
    and the peak memory of this call; the runs' own files hold nothing that differs between two calls.

    Returns
    -------
    dict
        ``table`` (a row a subject) and ``report``, the first subject's page; ``group`` is the page over all.
    """
    from lab.files import write_json
    from lab.report import build_group_report
    from lab.runs.metrics import tidy

    rows, pages, began = [], [], time.monotonic()
    scores: dict[str, Any] = {}
    for subject in SUBJECTS:
        found = reconstruct(
            demo_config(subject, out), out / subject, progress, checkpoints=out / "checkpoints"
        )
        scores |= {f"{subject}.{k}": v for k, v in found.items() if isinstance(v, int | float)}
        rows.append({"simulated subject": subject, **{k: _short(found.get(k)) for k in _COLUMNS}})
        pages.append(found["report"])
    group = build_group_report([out / s for s in SUBJECTS], out / "group.html")
    scores |= {"peak_memory_gb": peak_memory_gb(), "seconds_total": round(time.monotonic() - began, 1)}
    write_json(out / "metrics.json", tidy(scores))
    return {"table": rows, "report": str(Path(pages[0]).resolve()), "group": str(group.resolve())}


def peak_memory_gb() -> float | None:
    """Return the most memory this process and its finished children held, in GB (None where unknown)."""
    try:
        import resource
    except ImportError:  # no such module on Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return round(sum(resource.getrusage(w).ru_maxrss for w in who) * unit / 1e9, 3)


def _short(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value
