"""Job behind ``brainlab zoo info``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.jobs import contract
from lab.jobs.contract import Context, Table, line, record, setting


class Settings(contract.Settings):
    """Show a model's card: data, training, quality."""

    name: str = setting(..., "name of the model (brainlab zoo list)", argument=True)


class Result(contract.Result):
    """A model's name, summary, weight file, size and card."""

    card: dict[str, Any]

    def plain(self) -> Any:
        """Return the card."""
        return self.card

    def tables(self) -> list[Table]:
        """Return the card; what it lists row by row follows as tables."""
        rest, lists = _apart(self.card)
        more = line("(where a row has further parts: --json)")
        return [record(rest), *(Table(_rows(rows)) for rows in lists), *([more] if lists else [])]


def _apart(card: Mapping[str, Any]) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
    """Take lists of records out of nested values."""
    rest: dict[str, Any] = {}
    lists: list[list[dict[str, Any]]] = []
    for name, value in card.items():
        if isinstance(value, Mapping):
            rest[name], inner = _apart(value)
            lists += inner
        elif isinstance(value, list) and len(value) > 1 and all(isinstance(row, Mapping) for row in value):
            rest[name] = f"{len(value)} rows below"
            lists.append(value)
        else:
            rest[name] = value
    return rest, lists


def _rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each part of each record that is measured: (value, low, high) as one cell."""
    rows = []
    for one in records:
        shared = {key: _cell(value) for key, value in one.items() if not isinstance(value, Mapping)}
        parts = {key: value for key, value in one.items() if isinstance(value, Mapping)}
        for name, part in parts.items():
            cells = {key: _cell(value) for key, value in part.items() if not isinstance(value, Mapping)}
            rows.append({**shared, "of": name, **cells})
        rows += [] if parts else [shared]
    return rows


def _cell(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 3 and all(isinstance(v, float | int) for v in value):
        return f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"
    return value


def run(settings: Settings, context: Context) -> Result:
    """Read a model's card.

    Raises
    ------
    InputError
        Unknown model.
    """
    from lab import zoo

    context.check()
    summary, file = zoo.summary(settings.name), zoo.weight_file(settings.name)
    size = round(file.stat().st_size / 1e6, 2) if file.is_file() else None
    about = {"name": settings.name, "what": summary, "weights": file.name if size else None}
    return Result(card={**about, "megabytes": size, **zoo.info(settings.name)})


def check(settings: Settings) -> None:
    """Refuse an unknown model."""
    from lab import zoo

    zoo.summary(settings.name)
