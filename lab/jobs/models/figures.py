"""Job behind ``brainlab figures``: the figures of an inspection or a comparison, as papers print them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lab.errors import InputError, MissingDataError
from lab.jobs import contract
from lab.jobs.contract import Context, setting

if TYPE_CHECKING:
    from lab.figures import Plate

_CAPTIONS = "captions.txt"


class Settings(contract.Settings):
    """Write a run's figures for a paper.

    Of brainlab inspect or brainlab compare, drawn anew from the run's numbers: vectors, the width of a
    column, all text of one size, no title. captions.txt has their captions.
    """

    folder: Path = setting(..., "folder of brainlab inspect or brainlab compare", argument=True)
    out: Path | None = setting(None, "folder of the files; default: FOLDER/paper", short="-o")
    layers: str = setting("", "of an inspection, wildcard over layers to draw; empty: those of its page")
    kind: Literal["pdf", "svg"] = setting("pdf", "form of the files")
    width: float = setting(3.4, "width", unit="inches", ge=1, le=20)
    points: float = setting(8.0, "size of all text", unit="points", ge=4, le=24)


class Result(contract.Result):
    """The files."""

    files_written: list[str]
    captions: str

    def tables(self) -> list[contract.Table]:
        """Return the files' names."""
        return [contract.Table([{"figure": name} for name in self.files_written])]

    def files(self) -> dict[str, str]:
        """Return the captions."""
        return {"captions": self.captions}


def names(settings: Settings) -> None:
    """Refuse a folder that is not there, and a file in the way; needs no torch."""
    if not settings.folder.is_dir():
        raise MissingDataError(f"no run folder at {settings.folder}: the path does not exist; check it")
    if settings.out is not None and settings.out.is_file():
        raise InputError(f"--out {settings.out} is a file; give a folder")


def check(settings: Settings) -> None:
    """Refuse what is no finished run, and layers that were not looked at; draws nothing."""
    names(settings)
    figures_of(settings.folder, settings.layers)


def run(settings: Settings, context: Context) -> Result:
    """Draw every figure of a run.

    Raises
    ------
    MissingDataError
        No such folder, or one that is no finished inspection or comparison.
    InputError
        No layer matches; the folder cannot be read.
    """
    from lab.figures.paper import for_paper
    from lab.files import replacing, write_text

    names(settings)
    drawn = figures_of(settings.folder, settings.layers)
    out = settings.out or settings.folder / "paper"
    out.mkdir(parents=True, exist_ok=True)
    written, captions = [], []
    for done, (name, draw) in enumerate(drawn.items()):
        context.progress(done, len(drawn), "drawing")
        plate, file = draw(), out / f"{name}.{settings.kind}"
        with replacing(file) as temporary:
            temporary.write_bytes(for_paper(plate, settings.kind, settings.width, settings.points))
        written.append(str(file))
        captions.append(f"{file.name}: {plate.caption}\n")
    write_text(out / _CAPTIONS, "\n".join(captions))
    context.progress(len(drawn), len(drawn), "drawing")
    return Result(files_written=written, captions=str(out / _CAPTIONS))


def figures_of(folder: Path, layers: str = "") -> dict[str, Callable[[], Plate]]:
    """Return the figures of a run by name, drawn when they are called."""
    from lab.compare.results import RESULTS
    from lab.report.compare import figures

    if (folder / "observation").is_dir():
        return _of_inspection(folder, layers)
    if not (folder / RESULTS).is_file():
        raise MissingDataError(
            f"{folder} is no finished run of brainlab inspect or brainlab compare: give the folder of one; "
            "pictures of a brain run: brainlab brain grid"
        )
    result = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    return {name: partial(draw, "light") for name, draw in figures(result).items()}


def _of_inspection(folder: Path, layers: str) -> dict[str, Callable[[], Plate]]:
    from fnmatch import fnmatchcase

    from lab.figures import Provenance
    from lab.report.inspection import close_ups, of_layer, overview
    from lab.runs.settings import read_settings
    from quant.observation import Observation

    seen = Observation.load(folder / "observation")
    s: dict[str, Any] = seen.settings
    looked = f"{s['samples']} samples at {len(s['timesteps'])} timesteps"
    file = folder / "config.yaml"
    sort = str(read_settings(file).get("sort", "absmax")) if file.is_file() else "absmax"
    source = Provenance(s.get("name", s["model"]), looked, s["recording"]["seed"])
    chosen = [n for n in seen.inputs if fnmatchcase(n, layers)] if layers else list(close_ups(seen, sort, 2))
    if not chosen:
        raise InputError(
            f"--layers {layers}: no layer that was looked at matches; brainlab inspect lists them"
        )
    shown = dict(overview(seen, source, sort))
    for layer in chosen:
        shown |= {f"{layer}-{name}": draw for name, draw in of_layer(seen, layer, source).items()}
    return {name: partial(draw, "light") for name, draw in shown.items()}
