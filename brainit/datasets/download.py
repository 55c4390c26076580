"""Fetch files from a public host; what was fetched first is kept by its hash and held to ever after."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from brainit.datasets.files.presence import check_content, there
from brainit.datasets.files.text import read_json
from brainit.errors import InputError
from brainit.io import hash_file, write_text
from brainit.progress import Progress

HASHES = "sha256.json"
_CHUNK = 2**20
_TIMEOUT = 60  # seconds without a byte


def fetch_files(
    urls: Mapping[str, str], root: Path, progress: Progress, check: Callable[[Path], object] = check_content
) -> Path:
    """Download files into a folder; what is there already is kept.

    The host states no hashes, so each file's SHA-256 is written to ``sha256.json`` when it is first there,
    and any later copy must have it.

    Parameters
    ----------
    urls : mapping of str to str
        Address of each file, by its name in the folder.
    root : Path
        Folder to fill; made if missing.
    progress : callable
        ``progress(done, total, what)`` in bytes.
    check : callable
        Reads a file and raises InputError where it is not what it should be; such a download is removed.

    Returns
    -------
    Path
        ``root``.

    Raises
    ------
    InputError
        No connection, a file that is not what it should be, or another one than was fetched first.
    """
    root.mkdir(parents=True, exist_ok=True)
    kept = read_json(root / HASHES) if there(root / HASHES) else {}
    for name, url in urls.items():
        path = root / name
        if not there(path):
            _download(url, path, kept.get(name), progress)
            try:
                check(path)
            except InputError:
                path.unlink()
                raise
        check(path)
        found = hash_file(path)
        if kept.setdefault(name, found) != found:
            raise InputError(
                f"{path} is not the file that was here first (SHA-256 {found[:12]}, first "
                f"{kept[name][:12]}); remove it to fetch it again, or {HASHES} if the change is meant"
            )
        write_text(root / HASHES, json.dumps(kept, indent=1) + "\n")
    return root


class _Bar:
    """What pooch reports to, in the house's form."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.total, self._done, self._what, self._progress = 0, 0, what, progress

    def update(self, count: int) -> None:
        self._done = min(self._done + count, self.total or self._done + count)
        self._progress(self._done, self.total or self._done, self._what)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        """Nothing is open."""


def _download(url: str, path: Path, known: str | None, progress: Progress) -> None:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    bar = _Bar(f"fetching {path.name}", progress)
    get = pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK, timeout=_TIMEOUT)
    try:
        pooch.retrieve(url, f"sha256:{known}" if known else None, path.name, path.parent, downloader=get)
    except OSError as error:  # all that requests raises is one
        raise InputError(
            f"{path.name} could not be downloaded from {url} ({' '.join(str(error).split())[:200]}); try "
            f"again, or get it by hand and put it into {path.parent}"
        ) from error
    except ValueError as error:  # pooch: the hash differs
        raise InputError(
            f"{url} now gives another file than was fetched first (kept in {path.parent / HASHES}); "
            "nothing was written"
        ) from error
