"""Every failure is one line and a code."""

from __future__ import annotations

import errno

import pytest

from brainit.errors import InputError as BrainInput
from brainit.errors import MissingDataError
from lab.errors import explain, show
from lab.stopped import STOPPED
from quant.errors import HardwareError

CASES = {
    "ctrl-c": (KeyboardInterrupt(), 130, STOPPED),
    "bad input": (BrainInput("grid is 3x3,\n  mask is 4x4"), 2, "grid is 3x3, mask is 4x4"),
    "missing data": (MissingDataError("no file"), 4, "no file"),
    "hardware": (HardwareError("no int4 here"), 3, "no int4 here"),
    "full disk": (
        OSError(errno.ENOSPC, "No space left on device", "a.npz"),
        2,
        "disk full while writing a.npz",
    ),
    "disk full, of safetensors": (
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        2,
        "disk full",
    ),
    "read-only, of safetensors": (
        RuntimeError("I/O error: Read-only file system (os error 30)"),
        2,
        "choose another folder",
    ),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), 2, "disk full"),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "runs"), 2, "choose another folder"),
    "no file": (FileNotFoundError(2, "No such file or directory", "x.mat"), 2, "x.mat: no such file"),
    "no permission": (PermissionError(13, "Permission denied", "x.mat"), 2, "x.mat: permission denied"),
    "memory": (MemoryError(), 3, "out of memory"),
    "torch memory": (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 3, "out of memory"),
    "extra": (ModuleNotFoundError("No module named 'gradio'", name="gradio.themes"), 2, "brainit-lab[app]"),
    "package": (
        ModuleNotFoundError("No module named 'nilearn'", name="nilearn"),
        2,
        "'nilearn' is not installed",
    ),
    "own module": (ModuleNotFoundError("No module named 'lab.x'", name="lab.x"), 1, "internal error"),
    "fault": (TypeError("oops\nsecond line"), 1, "internal error: TypeError: oops second line"),
    "pipe": (BrokenPipeError(), 141, ""),
}


@pytest.mark.parametrize(("error", "code", "says"), CASES.values(), ids=CASES)
def test_code_and_line(error: BaseException, code: int, says: str) -> None:
    failure = explain(error)
    assert failure.code == code
    assert says in failure.message and "\n" not in failure.message
    assert failure.expected is (code != 1)


def test_a_fault_of_the_program_names_its_place_and_shows_the_traceback_when_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        {}["x"]
    except KeyError as error:
        assert show(error) == 1
        quiet = capsys.readouterr().err
        show(error, debug=True)
        loud = capsys.readouterr().err
    assert quiet.count("\n") == 1 and "test_errors.py:" in quiet and "BRAINLAB_DEBUG=1" in quiet
    assert "Traceback" in loud
