"""The demo: four new simulated subjects, decoded by a network that has never met them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from lab.decoding.settings import ReconstructConfig
from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.contract import Context, Table, setting

SUBJECTS = ("sub-01", "sub-02", "sub-03", "sub-04")
_COLUMNS = (
    "two_way_feature",
    "pixcorr",
    "fp.two_way_feature",
    "ridge_tokens.two_way_feature",
    "ridge_tokens.pixcorr",
    "ridge.two_way_feature",
    "ridge.pixcorr",
    "paired_psnr_to_fp",
)


def demo_config(subject: str, out: Path) -> ReconstructConfig:
    """Return the settings of one simulated subject's run: one sample a picture from one noise seed.

    600 trials of one presentation each, noise ceilings of .20 to .30, 2,400 voxels. The cortex is
    favourable: early voxels are simple filters, ventral ones read stages of EfficientNet-Lite0, which also
    scores the pictures. Diffusion starts from noise alone: of strengths .6, .8 and 1 from ridge's picture,
    strength 1 had the greatest sum of feature two-way and PixCorr (1.12, 1.26, 1.29) on 60 left-out training
    trials of the first subject (``lab.jobs.brain.tune``).
    """
    return ReconstructConfig.model_validate(
        {
            "dataset": "simulated",
            "root": str(out / "data"),
            "subject": subject,
            "options": {"preset": "demo", "seed": 20, "features": "efficientnet"},
            "network": "shared",
            "train_on": "one",
            "denoiser": "dit-64",
            "noise_seeds": 1,
            "steps": 10,
            "structure": "ridge",
            "strength": 1.0,
            "n_samples": 1,
            "guidance": 3.0,
            "bootstrap": 1000,
        }
    )


class Settings(contract.Settings):
    """Decode four new simulated subjects.

    The shipped network, which learned from other simulated people, is adapted to each from 600 trials and
    decodes what it saw, beside ridge to tokens through the same decoder. Their ventral voxels read
    EfficientNet-Lite0, the network that scores: a favourable cortex.
    """

    out: Path = setting(Path("runs/demo"), "folder for the runs", short="-o")


class Result(contract.Result):
    """A row for each subject; the first subject's page, and the one over all."""

    table: list[dict[str, Any]]
    report: str
    group: str

    def tables(self) -> list[Table]:
        """Return the subjects' scores."""
        return [Table(self.table)]

    def files(self) -> dict[str, str]:
        """Return both pages."""
        return {"report": self.report, "group": self.group}

    def next_step(self) -> str:
        """Return how data of one's own are decoded."""
        return "brainlab data list"


def run(settings: Settings, context: Context) -> Result:
    """Make the simulated subjects below ``out``, adapt to each, decode it, write the reports.

    Stopped, it goes on where it was. ``metrics.json`` below ``out`` holds every subject's scores, the seconds
    and the peak memory of this call; the runs' other files hold nothing that differs between two calls.

    Raises
    ------
    InputError
        The folder holds something else.
    """
    from lab.files import write_json
    from lab.jobs.reconstruct import reconstruct
    from lab.report import build_group_report
    from lab.runs.metrics import tidy

    out = settings.out
    check(settings)
    rows, pages, began = [], [], time.monotonic()
    scores: dict[str, Any] = {}
    encoded: dict[str, Any] = {}  # the subjects share their training pictures
    for subject in SUBJECTS:
        found = reconstruct(demo_config(subject, out), out / subject, context.progress, encoded=encoded)
        scores |= {f"{subject}.{k}": v for k, v in found.items() if isinstance(v, int | float)}
        scored = {k: _short(found.get(k)) for k in _COLUMNS}
        leaked = f"{found.get('leak_test_in_train')} of {found.get('n_test')}"
        rows.append({"simulated subject": subject, **scored, "test pictures in training": leaked})
        pages.append(found["report"])
    group = build_group_report([out / s for s in SUBJECTS], out / "group.html")
    scores |= {"peak_memory_gb": peak_memory_gb(), "seconds_total": round(time.monotonic() - began, 1)}
    write_json(out / "metrics.json", tidy(scores))
    return Result(table=rows, report=str(Path(pages[0]).resolve()), group=str(group.resolve()))


def check(settings: Settings) -> None:
    """Refuse a folder that holds something else."""
    from lab.models.preflight import check_folder

    out = settings.out
    check_folder(out)
    there = [path for path in out.iterdir() if path.is_file()] if out.exists() else []
    strange = sorted({p.name for p in there if p.name[0] != "."} - {"metrics.json", "group.html"})
    if strange:
        raise InputError(
            f"{out} holds other files ({strange[0]}) and is no demo's folder; choose another --out"
        )


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
