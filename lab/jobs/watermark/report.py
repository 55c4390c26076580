"""Job behind ``brainlab watermark report``: a mark under attack, and where it falls."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.jobs.contract import Context, Device, Foreseen, Table, Words, line, setting
from lab.jobs.contract import Result as BaseResult
from lab.jobs.watermark.settings import RATE, OfKey, files, open_key
from lab.jobs.zoo.train import check_folder
from lab.models.devices import choose_device

WEIGHTS = ("autoencoder-64", "dit-64", "encoder-64")
HELD_OUT = 2000
"""Natural pictures that no model was trained on."""
SECTIONS = ("null", "images", "regeneration", "averaging", "training")


class Settings(OfKey):
    """Measure a mark: false positives, misses, attacks on pictures, forgery, training of the decoder.

    Writes watermark.csv and report.html. On a CPU give fewer pictures, or leave out training. The same
    command goes on after a stop; other sections may be asked for in the same folder.
    """

    data: Path = setting(..., "folder with the held-out and training pictures")
    out: Path = setting(Path("runs/watermark-report"), "folder of the table and the page", short="-o")
    others: tuple[Path, ...] = setting((), "further keys, whose pictures must not be accepted", repeat=True)
    n: int = setting(200, "held-out pictures", ge=20, le=HELD_OUT)
    rate: float = setting(RATE, "share of unmarked pictures that may be called marked", gt=0, lt=1)
    sections: Words = setting(SECTIONS, f"what to measure, of {', '.join(SECTIONS)}")
    device: Device = setting("auto", "where the networks run")


class Result(BaseResult):
    """A row for each test."""

    rows: list[dict[str, Any]]
    folder: str
    note: str = ""
    """Whether the pictures had a say in which training was taken."""

    def tables(self) -> list[Table]:
        """Return every test in one line, then the note."""
        said = [line(self.note)] if self.note else []
        return [Table([
            {"test": r["kind"], "of": r["name"], "n": r["n"],
             "bit error, %": "" if r.get("bit_error") is None else f"{100 * r['bit_error']:.2f}",
             "accepted": r.get("accepted", "")}
            for r in self.rows
        ]), *said]  # fmt: skip

    def files(self) -> dict[str, str]:
        """Return the folder."""
        return {
            "report": str(Path(self.folder) / "report.html"),
            "table": str(Path(self.folder) / "watermark.csv"),
        }


def run(settings: Settings, context: Context) -> Result:
    """Measure and write; a stopped report goes on after its last section.

    Raises
    ------
    InputError
        Unknown section, a damaged key, one of the same message among the others, a folder of other settings.
    MissingDataError
        Pictures are missing.
    """
    from lab.compare.tables import to_csv
    from lab.files import write_text
    from lab.jobs.watermark.page import watermark_document
    from lab.runs.folder import NOT_TAKEN, Run
    from lab.zoo.watermark.evaluation import Attacked

    claim = _claim(settings)
    key, extractor = files(settings)

    @cache  # what was measured before needs no pictures
    def attacked() -> Attacked:
        return Attacked(
            [key, *settings.others], extractor, settings.data, n=settings.n, rate=settings.rate,
            device=claim["device"], progress=context.progress,
        )  # fmt: skip

    def section(name: str) -> dict[str, Any]:
        return {"rows": attacked().rows(name)}

    rows: list[dict[str, Any]] = []
    with Run.open(settings.out, claim, note=NOT_TAKEN) as folder:
        for index, name in enumerate(settings.sections):
            context.progress(index, len(settings.sections), name)
            rows += folder.step(name, partial(section, name))["rows"]
        write_text(settings.out / "watermark.csv", to_csv(rows))
        note = chosen_on(settings)
        watermark_document(rows, settings.rate, key.name, note).save_as_html(settings.out / "report.html")
        folder.finish()
    return Result(rows=rows, folder=str(settings.out), note=note)


def chosen_on(settings: Settings) -> str:
    """Say which of the measured pictures an extractor may have been chosen on; empty where none."""
    from lab.zoo.watermark.files import EXTRACTOR
    from lab.zoo.watermark.training import JUDGED

    n, free = settings.n, HELD_OUT - JUDGED
    if files(settings)[1] == EXTRACTOR:
        those = "all" if n <= JUDGED else f"{JUDGED:,}"
        return (
            f"The shipped extractor was the better of two trainings on the first {JUDGED:,} held-out "
            f"pictures; {those} of the {n:,} measured here are among those."
        )
    if n <= free:
        return ""
    return (
        f"A training is judged on the last {JUDGED:,} of {HELD_OUT:,} held-out pictures; {n - free:,} of the "
        f"{n:,} measured here are among those: where trainings were chosen by that, give --n {free} or fewer."
    )


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be measured."""
    from lab.runs.folder import Run

    claim = _claim(settings)
    Run.check(settings.out, claim)
    facts = {"would measure": ", ".join(settings.sections), "n": settings.n, "device": claim["device"]}
    return Foreseen(facts=facts)


def _claim(settings: Settings) -> dict[str, Any]:
    """Return all that a section depends on; refuses what cannot be measured."""
    from lab import zoo
    from lab.files import hash_file
    from lab.models.weights import fingerprint
    from lab.runs.settings import MADE_FROM
    from lab.zoo import data
    from lab.zoo.watermark.files import load_key

    unknown = [name for name in settings.sections if name not in SECTIONS]
    if unknown or not settings.sections:
        raise InputError(f"--sections {','.join(unknown) or 'is empty'}: give some of {', '.join(SECTIONS)}")
    check_folder(settings.data)
    reader, key = open_key(settings)
    _, extractor = files(settings)
    for other in settings.others:
        if load_key(other, extractor, reader.config["bits"]).message == key.message:
            raise InputError(f"--others {other} has the key's own message: give keys of other messages")
    made_from = {
        "data": fingerprint(data.check(settings.data)),
        "zoo": fingerprint(map(zoo.weight_file, WEIGHTS)),
        "keys": [hash_file(file) for file in (key.file, *settings.others)],
        "extractor": hash_file(extractor),
    }
    given = {"n": settings.n, "rate": settings.rate, "device": choose_device(settings.device)}
    return {**given, MADE_FROM: made_from}
