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
from lab.progress import Progress


class FolderLock:
    """Lock a folder against a second process.

    The operating system drops the lock when its owner ends, however it ends, so a killed run leaves nothing
    to clean up. The file's text (the owner's process number) only serves the message.

    Parameters
    ----------
    folder : Path
        Existing folder; the lock is its file ``.lock``.
    wait : callable, optional
        Progress. With it the other process is waited for, in place of an error, and ``wait`` hears of it.
    """

    def __init__(self, folder: Path, wait: Progress | None = None) -> None:
        self._path = folder / ".lock"
        self._queue = folder / ".waiting"
        self._wait = wait
        self._handle: int | None = None

    def acquire(self) -> FolderLock:
        """Take the lock or raise `InputError` naming the process that holds it."""
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._lock(handle)
        except BaseException:  # one that waits may be stopped
            os.close(handle)
            raise
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle
        return self

    def _lock(self, handle: int) -> None:
        owner = self._try(handle)
        if owner and self._wait is not None:
            with self._queue.open("a+b") as queue:  # NFS shares a lock only of what is open for reading
                fcntl.flock(queue, fcntl.LOCK_SH)  # all that wait share it: see `awaited`
                self._wait(0, 1, f"waiting for process {owner}, which is at the same work")
                fcntl.flock(handle, fcntl.LOCK_EX)

    def _try(self, handle: int) -> str:
        """Take the lock, or return who holds it (an error where nobody waits)."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise
            owner = os.read(handle, 64).decode(errors="replace").strip() or "unknown"
            if self._wait is None:
                raise InputError(
                    f"{self._path.parent} is in use by process {owner}; wait for it or choose another --out"
                ) from None
            return owner
        return ""

    def awaited(self) -> bool:
        """Say whether somebody waits for this lock, as only those do who were given ``wait``."""
        if not self._queue.exists():
            return False
        with self._queue.open("ab") as queue:
            try:
                fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # EWOULDBLOCK, or EACCES as in `_try`
                return True
        return False

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


def alone_with(folder: Path, progress: Progress) -> FolderLock:
    """Return a lock that waits until no other process works in ``folder``, which need not be there yet.

    ``progress`` hears whom it waits for. The lock lies in the cache (`lab.cache`), so the folder holds
    nothing but what belongs there.
    """
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    locks = cache_folder("locks", name)
    locks.mkdir(parents=True, exist_ok=True)
    return FolderLock(locks, wait=progress)
