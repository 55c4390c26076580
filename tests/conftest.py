"""Shared fixtures: where the real data lie, and which marked tests can run here."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("BRAINLAB_SHARED_DATA", REPO.parent / "shared" / "data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason."""
    for item in items:
        if item.get_closest_marker("gpu") and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("shared_data") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no data folder at {SHARED}"))
        if item.get_closest_marker("browser") and not shutil.which("chromium"):
            item.add_marker(pytest.mark.skip(reason="no Chromium"))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep recordings of these tests out of the user's cache; commands that tests start inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def repo() -> Path:
    """Root of the checkout."""
    return REPO


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with the real data sets; the test is skipped where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"no data folder at {SHARED}")
    return SHARED


@pytest.fixture
def interpreted(repo: Path) -> Callable[[str], None]:
    """Run ``check("cpu")`` of a test file in a process of its own with TRITON_INTERPRET=1."""

    def run(file: str) -> None:
        if importlib.util.find_spec("triton") is None:
            pytest.skip("triton is not installed")
        code = (
            "import runpy, sys; sys.path.insert(0, sys.argv[1])\n"
            "runpy.run_path(sys.argv[2])['check']('cpu'); print('equal')"
        )
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", code, str(repo), file],
            env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0 and done.stdout.strip() == "equal", done.stderr[-3000:]

    return run
