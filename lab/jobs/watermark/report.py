"""Job behind ``brainlab watermark report``: a mark under attack, and where it falls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.jobs.contract import Context, Device, Foreseen, Table, Words, setting
from lab.jobs.contract import Result as BaseResult
from lab.jobs.watermark.settings import RATE, OfKey, files, open_key
from lab.jobs.zoo.train import check_folder
from lab.models.devices import choose_device

SECTIONS = ("null", "images", "regeneration", "averaging", "training")


class Settings(OfKey):
    """Measure a mark: false positives, misses, attacks on pictures, forgery, training of the decoder.

    Writes watermark.csv and report.html. On a CPU give fewer pictures, or leave out training.
    """

    data: Path = setting(..., "folder with the held-out and training pictures")
    out: Path = setting(Path("runs/watermark-report"), "folder of the table and the page", short="-o")
    others: tuple[Path, ...] = setting((), "further keys, whose pictures must not be accepted", repeat=True)
    n: int = setting(200, "held-out pictures", ge=20, le=2000)
    rate: float = setting(RATE, "share of unmarked pictures that may be called marked", gt=0, lt=1)
    sections: Words = setting(SECTIONS, f"what to measure, of {', '.join(SECTIONS)}")
    device: Device = setting("auto", "where the networks run")


class Result(BaseResult):
    """A row for each test."""

    rows: list[dict[str, Any]]
    folder: str

    def tables(self) -> list[Table]:
        """Return every test in one line."""
        return [Table([
            {"test": r["kind"], "of": r["name"], "n": r["n"],
             "bit error, %": "" if r.get("bit_error") is None else f"{100 * r['bit_error']:.2f}",
             "accepted": r.get("accepted", "")}
            for r in self.rows
        ])]  # fmt: skip

    def files(self) -> dict[str, str]:
        """Return the folder."""
        return {
            "report": str(Path(self.folder) / "report.html"),
            "table": str(Path(self.folder) / "watermark.csv"),
        }


def run(settings: Settings, context: Context) -> Result:
    """Measure and write.

    Raises
    ------
    InputError
        Unknown section, a damaged key, or no folder of pictures.
    """
    from lab.compare.tables import to_csv
    from lab.files import write_text
    from lab.jobs.watermark.page import watermark_document
    from lab.zoo.watermark.evaluation import evaluate

    device = _check(settings)
    key, extractor = files(settings)
    rows: list[dict[str, Any]] = []
    for found in evaluate(
        [key, *settings.others], extractor, settings.data, n=settings.n, rate=settings.rate,
        sections=settings.sections, device=device, progress=context.progress,
    ):  # fmt: skip
        rows += found
        write_text(settings.out / "watermark.csv", to_csv(rows))
        watermark_document(rows, settings.rate, key.name).save_as_html(settings.out / "report.html")
    return Result(rows=rows, folder=str(settings.out))


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be measured."""
    device = _check(settings)
    return Foreseen(facts={"would measure": ", ".join(settings.sections), "n": settings.n, "device": device})


def _check(settings: Settings) -> str:
    unknown = [name for name in settings.sections if name not in SECTIONS]
    if unknown or not settings.sections:
        raise InputError(f"--sections {','.join(unknown) or 'is empty'}: give some of {', '.join(SECTIONS)}")
    check_folder(settings.data)
    open_key(settings)
    return choose_device(settings.device)
