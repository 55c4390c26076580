"""Names of the datasets, what each one is, and the one door through which they are opened.

Listing needs nothing but the standard library; an adapter's module is imported when it is used.
An adapter is a module with ``subjects(root)`` and ``load(root, subject, **options)``, and may add
``check(root)`` (findings that only it can know) and ``fetch(root, progress)``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainit.datasets.cards import CARDS
from brainit.errors import InputError, MissingDataError
from brainit.progress import Progress, silent

if TYPE_CHECKING:
    from brainit.subject import Subject


@dataclass(frozen=True)
class DatasetCard:
    """What a dataset is, before any of it is read.

    Parameters
    ----------
    name, title : str
        Name on the command line, and one line that says what it is.
    simulated : bool
        True where no real brain was measured.
    terms, size, source, how : str
        Conditions of use, size on disk, where it comes from, how to get it.
    module : str
        Module of the adapter, imported when the dataset is opened.
    fetches : bool
        Whether ``fetch`` can get it without a person.
    options : mapping of str to str
        Options of ``open`` and one line of help each.
    """

    name: str
    title: str
    simulated: bool
    terms: str
    size: str
    source: str
    how: str
    module: str
    fetches: bool = False
    options: Mapping[str, str] = field(default_factory=dict)

    def adapter(self) -> Any:
        """Import and return the adapter's module."""
        return import_module(self.module)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Refuse an option that the dataset does not have (InputError)."""
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            allowed = ", ".join(self.options) or "none"
            raise InputError(f"dataset {self.name!r} has no option {unknown[0]!r}; allowed: {allowed}")


_REGISTRY: dict[str, DatasetCard] = {card["name"]: DatasetCard(**card) for card in CARDS}


def list_datasets() -> list[str]:
    """Return the names of all datasets."""
    return list(_REGISTRY)


def card(name: str) -> DatasetCard:
    """Return the card of dataset ``name``.

    Raises
    ------
    InputError
        The name is not known.
    """
    if name not in _REGISTRY:
        near = get_close_matches(name, _REGISTRY, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"unknown dataset {name!r}; allowed: {', '.join(_REGISTRY)}{hint}")
    return _REGISTRY[name]


def describe(name: str) -> dict[str, Any]:
    """Return the card of dataset ``name`` as plain data, without the module's name."""
    plain = asdict(card(name))
    del plain["module"]
    return plain


def default_root(name: str) -> Path:
    """Folder of a dataset where none is given: ``$BRAINLAB_DATA/NAME``, else ``data/NAME`` in the cache.

    The cache is ``$BRAINLAB_CACHE``, else ``brainlab`` in the user's, as for everything that is kept.
    """
    if base := os.environ.get("BRAINLAB_DATA"):
        return Path(base) / name
    if base := os.environ.get("BRAINLAB_CACHE"):
        return Path(base).expanduser() / "data" / name
    import pooch

    return Path(pooch.os_cache("brainlab")) / "data" / name


def _root(name: str, root: str | os.PathLike[str] | None) -> Path:
    return Path(root).expanduser() if root is not None else default_root(name)


def _existing(entry: DatasetCard, root: str | os.PathLike[str] | None) -> Path:
    path = _root(entry.name, root)
    if path.is_symlink() and not path.exists():
        from brainit.datasets.files.presence import check_content

        check_content(path)
    if not path.exists() and not getattr(entry.adapter(), "MAKES_ITSELF", False):
        raise MissingDataError(f"dataset {entry.name!r}: {path} does not exist; {entry.how}")
    return path


def subjects(name: str, root: str | os.PathLike[str] | None = None) -> list[str]:
    """Return the names of the subjects found under ``root``."""
    entry = card(name)
    return entry.adapter().subjects(_existing(entry, root))


def open(
    name: str, root: str | os.PathLike[str] | None = None, subject: str | None = None, **options: Any
) -> Subject:
    """Read one subject of a dataset.

    Parameters
    ----------
    name : str
        One of ``list_datasets()``.
    root : path, optional
        Folder (or file) of the dataset; default ``default_root(name)``.
    subject : str, optional
        One of ``subjects(name, root)``; default the first.
    **options
        The adapter's own options, listed in ``describe(name)["options"]``.

    Returns
    -------
    Subject

    Raises
    ------
    InputError
        A name or option is not known, or the files are not what they should be.
    MissingDataError
        The files are not there.

    Examples
    --------
    >>> from brainit import datasets
    >>> subject = datasets.open("digits69", "../shared/data/digits69")  # doctest: +SKIP
    >>> subject.betas.shape  # doctest: +SKIP
    (100, 3092)
    """
    entry = card(name)
    entry.check_options(options)
    return entry.adapter().load(_existing(entry, root), subject, **options)


def fetch(name: str, root: str | os.PathLike[str] | None = None, progress: Progress = silent) -> Path:
    """Download or make a dataset and return its folder; what is already there is kept.

    Raises
    ------
    MissingDataError
        The dataset cannot be fetched without a person; the message says what to do.
    """
    entry = card(name)
    path = _root(name, root)
    if not entry.fetches:
        raise MissingDataError(f"dataset {name!r} cannot be downloaded automatically; {entry.how}")
    return entry.adapter().fetch(path, progress)
