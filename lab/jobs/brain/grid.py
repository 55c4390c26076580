"""Job behind ``brainlab brain grid``: a run's pictures in one file, chosen by rule."""

from __future__ import annotations

from pathlib import Path

from lab.errors import InputError
from lab.jobs import contract
from lab.jobs.brain.scores import check_run
from lab.jobs.contract import Context, Words, setting


class Settings(contract.Settings):
    """Write a run's pictures as one PNG.

    Best, median, worst and random ones, chosen by rule: stimulus over reconstructions.
    """

    folder: Path = setting(..., "run folder", argument=True)
    out: Path = setting(Path("grid.png"), "PNG file", short="-o")
    n_each: int = setting(3, "pictures of each group", ge=1, le=20)
    only: Words = setting((), "groups to show: best, median, worst, random; default all")


class Result(contract.Result):
    """The picture's file."""

    picture: str

    def files(self) -> dict[str, str]:
        """Return the picture."""
        return {"picture": self.picture}


def run(settings: Settings, context: Context) -> Result:
    """Write one picture of a finished run.

    Raises
    ------
    MissingDataError
        No such folder, or one without metrics.
    InputError
        The run holds no reconstructed pictures, or ``out`` is no PNG file's name.
    """
    from lab.figures import choose, picture_grid
    from lab.figures.brain.pictures import rows_of
    from lab.files import replacing
    from lab.report.rundata import read_run

    folder, out = settings.folder, settings.out
    check(settings)
    context.progress(0, 1, "drawing")
    data = read_run(folder)
    if "quantized" not in data.arrays:
        raise InputError(f"{folder} holds no reconstructed pictures (arrays.npz); finish the run first")
    score = data.arrays["score_pixcorr"]
    groups = choose(score, settings.n_each, data.seed)
    unknown = sorted(set(settings.only) - {name for name, _ in groups})
    if unknown:
        raise InputError(f"--only {unknown[0]}: not a group; there are {', '.join(n for n, _ in groups)}")
    if settings.only:
        groups = [(name, which) for name, which in groups if name in settings.only]
    rows = (*rows_of(data.config.get("strength")), ("ridge_tokens", "ridge's tokens"))
    plate = picture_grid(data.arrays, groups, score, data.provenance(), rows=rows)
    with replacing(out) as temporary:
        temporary.write_bytes(plate.png())
    context.progress(1, 1, "drawing")
    return Result(picture=str(out))


def check(settings: Settings) -> None:
    """Refuse what is no run, and a file that cannot be written."""
    from lab.models.preflight import check_file

    check_file(settings.out, ".png")
    check_run(settings.folder)
