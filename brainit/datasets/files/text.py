"""All text of a dataset is read here: encodings, tables and JSON, with the line that is wrong."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brainit.datasets.files.presence import check_content
from brainit.errors import InputError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path, missing: str = "copy it there or check the folder's layout") -> str:
    """Read a text file as UTF-8, or as what its byte order mark says.

    Parameters
    ----------
    path : Path
    missing : str
        What to do where there is no such file.

    Returns
    -------
    str
        Composed characters (NFC), lines ended by a line feed, without a byte order mark.

    Raises
    ------
    MissingDataError
        There is no such file.
    InputError
        It is of another encoding (latin-1, say); the line is named.
    """
    check_content(path, missing)
    raw = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    if encoding.startswith("utf-8") and b"\0" in raw:
        raise InputError(f"{path} is not a text file, or UTF-16 without a byte order mark; save it as UTF-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError(
            f"{path} line {line}: byte 0x{raw[error.start]:02x} is not "
            f"{encoding.removesuffix('-sig').upper()} (latin-1?); save the file as UTF-8"
        ) from error
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))


class Row(dict[str, str]):
    """Cells of one line of a table by column name; ``where`` names file and line for messages."""

    where: str = ""

    def text(self, column: str) -> str:
        """Return a cell, empty where the column or the value (``n/a``) is missing."""
        cell = self.get(column, "").strip()
        return "" if cell.lower() == "n/a" else cell

    def number(self, column: str) -> float:
        """Return a cell as a number.

        Raises
        ------
        InputError
            It is not one.
        """
        try:
            value = float(self.text(column))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{self.where}: {column} is {self[column]!r}; allowed: a number")
        return value


def read_table(path: Path, needed: Sequence[str], missing: str = "copy it there") -> list[Row]:
    """Read a tab-separated table with a header.

    Raises
    ------
    MissingDataError
        There is no such file.
    InputError
        A column is missing or named twice, a line has another number of cells than the header, or a quotation
        is not closed.
    """
    reader = csv.reader(io.StringIO(read_text(path, missing)), delimiter="\t", strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: {error}; correct the table") from error
    names = [cell.strip() for cell in lines[0][1]] if lines else []
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: two columns are called {twice[0]!r}; each name may be there once")
    lost = [name for name in needed if name not in names]
    if lines and lost:
        hint = "; separate columns by tabs, not by commas" if len(names) == 1 and "," in names[0] else ""
        raise InputError(f"{path}: column {', '.join(lost)} is missing; found: {', '.join(names)}{hint}")
    rows = []
    for number, cells in lines[1:]:
        if len(cells) != len(names):
            raise InputError(f"{path} line {number} has {len(cells)} cells and the header {len(names)}")
        row = Row(zip(names, cells, strict=True))
        row.where = f"{path} line {number}"
        rows.append(row)
    return rows


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of names and values.

    Raises
    ------
    InputError
        It is not JSON, or holds something else.
    """
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not valid JSON ({error}); correct or remove it") from error
    except RecursionError:
        raise InputError(f"{path} is not valid JSON (nested too deeply); correct or remove it") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds a {type(found).__name__}; allowed: names and values in braces")
    return found
