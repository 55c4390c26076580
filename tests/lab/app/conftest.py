"""The app as a process of its own, started once for those who ask it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def brief(once: Callable[[str, Callable[[Path], object]], Path]) -> dict[str, str]:
    """An environment whose recording of dit-64 is short; the whole one takes half a minute of a core."""
    return {**os.environ, "BRAINLAB_CACHE": str(once("brief", _recorded))}


def _recorded(home: Path) -> None:
    from lab import zoo
    from lab.cache import cache_folder
    from lab.zoo.recordings import fingerprint, zoo_recording

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINLAB_CACHE", str(home))
        usual = {"n": 64, "steps": 20, "guidance": zoo.usual_guidance("dit-64"), "seed": 0}
        folder = cache_folder("recordings", f"dit-64-{fingerprint('dit-64', usual)}")
        zoo_recording("dit-64", folder, n=16, steps=4)
        assert zoo_recording("dit-64").path == folder  # which is found as the usual one


@pytest.fixture(scope="session")
def address(
    tmp_path_factory: pytest.TempPathFactory, trained_run: Path, brief: dict[str, str], repo: Path
) -> Iterator[str]:
    """Where ``brainlab app`` listens, with a trained run and one that has only a page."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(trained_run, home / "run", ignore=shutil.ignore_patterns(".lock"))
    (home / "run/metrics.json").write_text('{"pixcorr": 0.25}')
    (home / "reported").mkdir()
    (home / "reported/config.yaml").write_text("seed: 1\n")
    page = "<!doctype html><title>x</title><p>a page of more than two megabytes<!--" + "x" * 2_200_000 + "-->"
    (home / "reported/report.html").write_text(page)
    command = [sys.executable, "-P", "-m", "lab.cli.main", "app", "--port", str(_free()), "--runs", str(home)]
    server = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=repo, env={**brief, "PYTHONPATH": str(repo)}
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if found := re.search(r"open (http://127\.0\.0\.1:\d+)/", line):
                yield found[1]
                break
        else:
            pytest.fail("the app did not start")
    finally:
        server.terminate()
        assert server.wait(10) == 130


def _free() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
