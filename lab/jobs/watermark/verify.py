"""Job behind ``brainlab watermark verify``: whether pictures carry the key's message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.errors import InputError, MissingDataError
from lab.jobs.contract import Context, Foreseen, Table, setting
from lab.jobs.contract import Result as BaseResult
from lab.jobs.watermark.settings import RATE, OfKey, open_key


class Settings(OfKey):
    """Read the message out of PNG or JPEG files and say whether it is the key's.

    The p-value is the chance that a picture without the mark matches as many bits (binomial; outputs of the
    extractor are whitened on unmarked pictures). Where it is at most --rate, a picture counts as marked. That
    says that the marked decoder's texture is there, not who put it there: see the card for forgeries.
    """

    pictures: tuple[Path, ...] = setting(..., "PNG or JPEG files", argument=True, min_length=1)
    message: str | None = setting(None, "message to look for instead of the key's: bits, or hex after 0x")
    rate: float = setting(RATE, "share of unmarked pictures that may be called marked", gt=0, lt=1)


class Result(BaseResult):
    """A row for each picture."""

    rows: list[dict[str, Any]]
    bits: int
    needed: int | None
    rate: float

    def plain(self) -> Any:
        """Return the rows with bits and messages."""
        return {"bits": self.bits, "needed": self.needed, "rate": self.rate, "pictures": self.rows}

    def tables(self) -> list[Table]:
        """Return verdicts, and below each the bits that were read."""
        shown = [
            {"picture": r["picture"], "size": r["size"], "matches": f"{r['matches']} of {self.bits}",
             "p-value": f"{r['p_value']:.2g}", "verdict": r["verdict"]}
            for r in self.rows
        ]  # fmt: skip
        lines = [{"text": f"{row['picture']}: {row['read']}"} for row in self.rows]
        return [Table(shown), Table(lines, kind="lines"), Table([{"text": self.rule()}], kind="lines")]

    def rule(self) -> str:
        """Say what the verdict is by."""
        if self.needed is None:
            return f"{self.bits} bits can never say marked at a false-positive rate of {self.rate:g}."
        return f"Marked is said from {self.needed} of {self.bits} bits on: false-positive rate {self.rate:g}."


def names(settings: Settings) -> None:
    """Refuse pictures that are not there; needs no torch."""
    for path in settings.pictures:
        if not path.exists():
            raise MissingDataError(f"no picture at {path}")


def run(settings: Settings, context: Context) -> Result:
    """Read every picture.

    Raises
    ------
    InputError
        A file that is no picture or too small, a message of the wrong length, a damaged key.
    MissingDataError
        No such file.
    """
    from lab.zoo.watermark.pictures import read_picture
    from quant.adapters.watermark.extractor import SMALLEST
    from quant.adapters.watermark.verify import threshold

    reader, message, _ = _check(settings)
    bits, n = reader.config["bits"], len(settings.pictures)
    rows = []
    for index, path in enumerate(settings.pictures):
        context.progress(index, n, path.name)
        rows.append(reading(reader, message, read_picture(path, SMALLEST), settings.rate, str(path)))
    context.progress(n, n, "done")
    return Result(rows=rows, bits=bits, needed=threshold(bits, settings.rate), rate=settings.rate)


def _check(settings: Settings) -> tuple[Any, str, Any]:
    """Return extractor, message and key; refuses all that cannot be read."""
    from lab.zoo.watermark.pictures import read_picture
    from quant.adapters.watermark.extractor import SMALLEST
    from quant.adapters.watermark.verify import parse_message

    reader, key = open_key(settings)
    given = settings.message
    message = key.message if given is None else parse_message(given, reader.config["bits"])
    for path in settings.pictures:  # not kept: they may be large, and many
        read_picture(path, SMALLEST)
    return reader, message, key


def reading(reader: Any, message: str, picture: Any, rate: float, name: str) -> dict[str, Any]:
    """Read one picture (1, 3, h, w) in 0..1 and judge it."""
    import torch

    from quant.adapters.watermark.verify import judge

    with torch.inference_mode():
        found = reader(picture)[0]
    if not bool(torch.isfinite(found).all()):
        raise InputError(f"{name}: the extractor's outputs are not finite: it is damaged")
    text = "".join("1" if value > 0 else "0" for value in found.tolist())
    verdict = judge(text, message, rate)
    words = (
        "marked" if verdict.marked else "not marked" if verdict.needed is not None else "too few bits to say"
    )
    height, width = picture.shape[-2:]
    return {
        "picture": name, "size": f"{width}x{height}", "read": text, "message": message,
        "matches": verdict.matches, "p_value": verdict.p_value, "verdict": words,
    }  # fmt: skip


def dry_run(settings: Settings) -> Foreseen:
    """Say what would be read; refuses a damaged key, and files that are no pictures."""
    reader, _, key = _check(settings)
    return Foreseen(
        facts={"would read": len(settings.pictures), "bits": reader.config["bits"], "key": str(key.file)}
    )
