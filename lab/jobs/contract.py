"""What every job is: frozen settings in, plain data out, and a context for progress, cancelling and previews.

A job is one file with a class `Settings` and ``run(settings, context) -> Result``; a long one also has
``dry_run(settings) -> Result``, which refuses what cannot work and says what would be done. The command line,
the app, the widgets and the report are made from `Settings` and `Result`; none of them computes.
`lab.jobs.registry` knows them by name.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lab.previews import Preview as Preview
from lab.previews import Watcher, unseen
from lab.progress import Progress, silent
from lab.stopped import Cancelled as Cancelled


class Settings(BaseModel):
    """Settings of a job: every field is a `setting`, so that flags, forms and files are made from it.

    The class's docstring is what a person reads about the job.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    argument: bool = False,
    flag: str = "",
    short: str = "",
    repeat: bool = False,
    hidden: bool = False,
    **bounds: Any,
) -> Any:
    """Declare one field of `Settings`.

    Parameters
    ----------
    default : object
        ``...`` where it must be given.
    help : str
        What it means, for forms and ``--help``.
    unit : str
        Of a number, such as "bits" or "minutes".
    argument : bool
        On the command line it stands without a flag.
    flag : str
        Name of the flag where it is not the field's.
    short : str
        Such as "-o".
    repeat : bool
        A flag that is given several times; otherwise several values stand with commas between.
    hidden : bool
        Not for people: neither in forms nor in ``--help``.
    **bounds
        ``ge``, ``le``, ``gt``, ``lt``, ``min_length`` of pydantic.
    """
    extra: dict[str, Any] = {
        "unit": unit,
        "argument": argument,
        "flag": flag,
        "short": short,
        "repeat": repeat,
    }
    shown: dict[str, Any] = {key: value for key, value in (extra | {"hidden": hidden}).items() if value}
    return Field(default, description=help, json_schema_extra=shown, **bounds)


def _split(value: Any) -> Any:
    """Take "a,b" for what stands with commas between."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _whole(value: Any) -> Any:
    words = _split(value)
    if not isinstance(words, list | tuple) or not all(str(word).isdigit() for word in words):
        raise ValueError(f"{value!r}: give whole numbers with commas between, as 2,4,8")
    return _each_once([int(word) for word in words])


def _shares(value: Any) -> Any:
    words = _split(value)
    words = words if isinstance(words, list | tuple) else [words]
    try:
        numbers = [float(word) for word in words]
    except (TypeError, ValueError):
        numbers = [math.nan]
    if not all(0 <= number <= 1 for number in numbers):
        raise ValueError(f"{value!r}: give numbers from 0 to 1 with commas between, as 0.1,0.3")
    return _each_once(numbers)


def _each_once(numbers: list[Any]) -> tuple[Any, ...]:
    twice = next((n for k, n in enumerate(numbers) if n in numbers[:k]), None)
    if twice is not None:
        raise ValueError(f"{twice} is given twice; leave one away")
    return tuple(numbers)


Words = Annotated[tuple[str, ...], BeforeValidator(_split)]
"""Several words; one text with commas between is split."""
Numbers = Annotated[tuple[int, ...], BeforeValidator(_whole)]
"""Several whole numbers; one text with commas between is split."""
Shares = Annotated[tuple[float, ...], BeforeValidator(_shares)]
"""Several numbers from 0 to 1; one text with commas between is split."""
Device = Literal["auto", "cpu", "cuda"]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


@dataclass(frozen=True)
class Table:
    """Rows for a person to read.

    Parameters
    ----------
    rows : list of mapping
        Records with the same keys.
    columns : tuple of str
        Keys in the order of the table; empty: all of the first record.
    kind : {"rows", "record", "lines"}
        A table with a head; one record, as names and values; or lines of text.
    """

    rows: Sequence[Mapping[str, Any]]
    columns: tuple[str, ...] = ()
    kind: Literal["rows", "record", "lines"] = "rows"


class Result(BaseModel):
    """What a job gives: numbers, words and paths; pictures lie in files that it names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def plain(self) -> Any:
        """Return the complete result as plain data: what ``--json`` prints."""
        return self.model_dump(mode="json", exclude_none=False)

    def tables(self) -> list[Table]:
        """Return what a person looks at, in order; by default one record of everything."""
        return [record(self.plain())]

    def files(self) -> dict[str, str]:
        """Return the files and folders that were written, by what they are."""
        return {}

    def next_step(self) -> str:
        """Return what to do with it, as a command or a line of Python; empty if nothing suggests itself."""
        return ""

    def exit_code(self) -> int:
        """Return the exit code of the command line; 0 where all went well."""
        return 0


class Foreseen(Result):
    """What a job would do, found out without doing it."""

    facts: dict[str, Any]
    rows: tuple[dict[str, Any], ...] = ()

    def plain(self) -> Any:
        """Return the facts, and the rows if there are any."""
        return self.facts | ({"rows": list(self.rows)} if self.rows else {})

    def tables(self) -> list[Table]:
        """Return rows first, then facts."""
        return ([Table(self.rows)] if self.rows else []) + [record(self.facts)]


def record(values: Mapping[str, Any]) -> Table:
    """Return a table of names and values."""
    return Table([{"name": key, "value": value} for key, value in values.items()], kind="record")


def line(text: str) -> Table:
    """Return a line of text (or several)."""
    return Table([{"text": text}], kind="lines")


@dataclass(frozen=True)
class Context:
    """What a job may use of whoever runs it.

    Parameters
    ----------
    report : callable
        ``report(done, total, what)``; hears of progress.
    preview : callable
        Receives a `lab.previews.Preview` now and then.
    stop : threading.Event
        Set by whoever wants the job to end; looked at whenever the job reports progress.
    solved : dict, optional
        Kept over several jobs of one process: layers that recipes begin from; see `quant.quantize_`.
    """

    report: Progress = silent
    preview: Watcher = unseen
    stop: threading.Event = field(default_factory=threading.Event)
    solved: dict[str, Any] | None = None

    def progress(self, done: int, total: int, what: str) -> None:
        """Report progress and stop here if asked to; pass this on as the ``progress`` of any library call.

        Raises
        ------
        Cancelled
            Somebody set ``stop``.
        """
        self.check()
        self.report(done, total, what)

    def check(self) -> None:
        """Stop here if asked to (raises `Cancelled`)."""
        if self.stop.is_set():
            raise Cancelled("stopped on request; the same command goes on from what is finished")

    def cancel(self, *_: Any) -> None:
        """Ask the job to stop at its next report."""
        self.stop.set()
