"""One row of the tables of bad input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from brainit.subject import Subject
from tests.brainit.datasets.inputs import Make


@dataclass(frozen=True)
class Row:
    """One input and what must happen.

    Parameters
    ----------
    make : callable
        Makes it in an empty folder.
    says : str
        In the error, or in the warning where ``code`` is 0.
    code : int
        Exit code; 0 where it must be readable.
    right : callable
        Whether the subject that was read is right.
    options : mapping
        Of the dataset.
    """

    make: Make
    says: str = ""
    code: int = 2
    right: Callable[[Subject], Any] = lambda subject: True
    options: Mapping[str, Any] = field(default_factory=dict)


def read(make: Make, right: Callable[[Subject], Any], warns: str = "", **options: Any) -> Row:
    return Row(make, warns, 0, right, options)
