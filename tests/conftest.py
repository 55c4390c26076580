"""Shared fixtures: where the real data lie, and which marked tests can run here."""

from __future__ import annotations

import gc
import importlib.util
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("BRAINLAB_SHARED_DATA", REPO.parent / "shared" / "data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason; long checks of the whole house come first.

    They stand last otherwise, where one worker waits for the other's last long test.
    """
    items.sort(key=lambda item: item.path.parent != REPO / "tests")
    for item in items:
        if item.get_closest_marker("gpu") and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if item.get_closest_marker("shared_data") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no data folder at {SHARED}"))
        if item.get_closest_marker("browser") and not shutil.which("chromium"):
            item.add_marker(pytest.mark.skip(reason="no Chromium"))


def pytest_collection_finish() -> None:
    """Take what was imported out of the garbage collector's sight, and let it look less often."""
    gc.collect()
    gc.freeze()  # it looked through all of that each time
    gc.set_threshold(10_000, 20, 20)


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(everybodys: Path) -> Iterator[None]:
    """Keep recordings of these tests out of the user's cache; commands that tests start inherit it.

    The workers have one between them: what is found by its content is found whoever made it.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BRAINLAB_CACHE", str(everybodys / "cache"))
        yield


@pytest.fixture(autouse=True)
def _gradients_stay_on() -> Iterator[None]:
    """Name the test that leaves gradients off, not a later one of the same process that trains."""
    yield
    torch = sys.modules.get("torch")
    assert torch is None or torch.is_grad_enabled(), "this test switched gradients off and left them so"


@pytest.fixture(scope="session", autouse=True)
def _disk_in_its_own_time() -> Iterator[None]:
    """Let the disk write when it likes: 10 ms for each file are for power cuts, which no test makes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def everybodys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of this call of pytest."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def once(everybodys: Path) -> Callable[[str, Callable[[Path], object]], Path]:
    """``once(name, make)``: folder `name` that ``make(folder)`` filled, by the first worker that asks for it.

    What is in it is for reading: other tests read it too.
    """
    import fcntl

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        home, done = everybodys / name, everybodys / f"{name}.done"
        with (everybodys / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # dies with its owner
            if not done.exists():
                shutil.rmtree(home, ignore_errors=True)
                home.mkdir()
                make(home)
                done.touch()
        return home

    return folder


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


@pytest.fixture(scope="session")
def in_two_processes(once: Callable[[str, Callable[[Path], object]], Path], repo: Path) -> Path:
    """Folder with what two processes under ``accelerate launch`` learned: tests/launched.py, started once.

    They are forked from this one, which has imported what takes a new one seconds; with CUDA that cannot be.
    """
    # --multi_gpu is accelerate's word for several processes; with --cpu it starts a single one
    words = "--multi_gpu --num_machines 1 --mixed_precision no --dynamo_backend no --num_processes 2"

    def launch(home: Path) -> None:
        import torch

        from tests.launched import train_all

        command = [sys.executable, "-m", "accelerate.commands.launch", *words.split()]
        command += ["--main_process_port", "0", str(repo / "tests" / "launched.py"), str(home)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert ended.returncode == 0, ended.stderr[-3000:]
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        new: Any = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
        both = [new.Process(target=train_all, args=(home, rank, port)) for rank in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(280)
        assert [process.exitcode for process in both] == [0, 0]

    return once("together", launch)


INTERPRETER = """
import contextlib, json, runpy, sys, traceback
from triton.runtime import interpreter as triton
sys.path.insert(0, sys.argv[1])
patch, launch, patched = triton._patch_lang, triton.GridExecutor.__call__, set()

def once(fn):  # of a launch: triton looks through its language at each call of a function, in each program
    module = id(fn.__globals__)
    if module not in patched:
        patched.add(module)
        return patch(fn)

def anew(self, *given, **named):
    patched.clear()
    return launch(self, *given, **named)

triton._patch_lang, triton.GridExecutor.__call__ = once, anew
for line in sys.stdin:
    error = None
    with contextlib.redirect_stdout(sys.stderr):
        try:
            runpy.run_path(line.strip())["check"]("cpu")
        except BaseException:
            error = traceback.format_exc()
    print(json.dumps(error), flush=True)
"""


@pytest.fixture(scope="session")
def interpreted(repo: Path) -> Iterator[Callable[[str], None]]:
    """Run ``check("cpu")`` of a test file where TRITON_INTERPRET=1: one process, which imports torch once."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    process = subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", "-c", INTERPRETER, str(repo)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None

    def run(file: str) -> None:
        print(file, file=process.stdin, flush=True)
        answer = process.stdout.readline()
        assert answer, f"the interpreter ended with exit code {process.wait()}"
        assert json.loads(answer) is None, json.loads(answer)[-3000:]

    yield run
    process.stdin.close()
    process.wait(60)
