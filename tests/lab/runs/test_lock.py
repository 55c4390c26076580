"""A lock that waits says for whom, and goes on by itself."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from lab.runs.lock import FolderLock


def test_who_waits_says_for_whom(tmp_path: Path) -> None:
    heard, waited, first = list[str](), list[bool](), FolderLock(tmp_path).acquire()
    assert not first.awaited()

    def hear(done: int, total: int, words: str) -> None:
        heard.append(words)
        waited.append(first.awaited())
        threading.Timer(0.05, first.release).start()

    with FolderLock(tmp_path, wait=hear) as second:
        assert waited == [True] and not second.awaited()
        assert heard == [f"waiting for process {os.getpid()}, which is at the same work"]
    with FolderLock(tmp_path, wait=hear):  # free: nothing to say
        assert len(heard) == 1
