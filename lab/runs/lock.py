"""One process a run folder: an advisory lock that dies with its owner."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from pathlib import Path
from types import TracebackType

from lab.cache import cache_folder
from lab.errors import InputError


class FolderLock:
    """Lock a folder against a second process.

    The operating system drops the lock when its owner ends, however it ends, so a killed run leaves nothing
    to clean up. The file's text (the owner's process number) only serves the message.

    Parameters
    ----------
    folder : Path
        Existing folder; the lock is its file ``.lock``.
    wait : bool
        Wait until the other process is done, in place of an error.
    """

    def __init__(self, folder: Path, wait: bool = False) -> None:
        self._path = folder / ".lock"
        self._mode = 0 if wait else fcntl.LOCK_NB
        self._handle: int | None = None

    def acquire(self) -> FolderLock:
        """Take the lock or raise `InputError` naming the process that holds it."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | self._mode)
        except OSError as error:
            owner = os.read(handle, 64).decode(errors="replace").strip() or "another process"
            os.close(handle)
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise
            raise InputError(
                f"{self._path.parent} is in use by process {owner}; wait for it or choose another --out"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle
        return self

    def release(self) -> None:
        """Give the lock back; safe to call twice."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> FolderLock:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def alone_with(folder: Path) -> FolderLock:
    """Return a lock that waits until no other process works in ``folder``, which need not be there yet.

    It lies in the cache (`lab.cache`), so the folder holds nothing but what belongs there.
    """
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    locks = cache_folder("locks", name)
    locks.mkdir(parents=True, exist_ok=True)
    return FolderLock(locks, wait=True)
