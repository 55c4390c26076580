"""Pictures of the Brain page: large enough to look at, and test pictures chosen by a rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lab.errors import InputError
from lab.jobs.brain import decode

SIZE = 192
GROUPS = ("best", "median", "worst", "random")
MANY = 4


def large(picture: np.ndarray) -> np.ndarray:
    """Return a small picture (H, W[, 3]), values 0 to 1, at about `SIZE` pixels: uint8 (H, W, 3)."""
    own = decode.coloured(picture[None])[0]
    times = max(1, SIZE // own.shape[0])
    return np.kron((own * 255).round().clip(0, 255).astype(np.uint8), np.ones((times, times, 1), np.uint8))


def strips(found: decode.Result) -> list[tuple[np.ndarray, str]]:
    """One picture per trial and row of the sheet, with what it is and its score."""
    from lab.files import read_npz

    held = read_npz(Path(found.archive))
    # a blur is near in PixCorr; pictures too small for the network have no other score
    score = "two-way" if "two-way decoded" in found.rows[0] else "PixCorr"
    scored = {"ridge to pixels": f"{score} ridge", "decoded": f"{score} decoded"}
    short = {"ridge to pixels": "ridge"}
    shown = []
    for place, row in enumerate(found.rows):
        for name in found.shown:
            picture = held[name.replace(" ", "_")][place]
            words = f"{row['trial']}: {short.get(name, name)}"
            words += f" {row[scored[name]]:.2f}" if name in scored else ""
            shown.append((large(picture), words))
    return shown


def by_rule(folder: Path, group: str, n: int = MANY) -> list[int]:
    """Return test pictures of a run, counted from 0: the best, median, worst or random ones.

    Ranked by the PixCorr that the run wrote down, so that nobody has to look for a pretty one.

    Raises
    ------
    InputError
        No such group; a run without scores of its pictures.
    """
    from lab.figures.brain.pictures import choose
    from lab.files import read_npz

    if group not in GROUPS:
        raise InputError(f"{group[:40]!r}: not a group; there are {', '.join(GROUPS)}")
    file = folder / "arrays.npz"
    held = read_npz(file) if file.is_file() else {}
    if "score_pixcorr" not in held:
        raise InputError(f"{folder.name} has no scores of its pictures (arrays.npz): name them by number")
    return dict(choose(held["score_pixcorr"], n)).get(group, [])
