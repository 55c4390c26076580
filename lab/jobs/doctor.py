"""What this machine can do: hardware, packages, disk, and which arithmetic runs natively or simulated."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from lab.errors import EXTRA_OF
from lab.jobs import contract
from lab.jobs.contract import Context, Table

OK, NOTE, BAD = "ok", "note", "bad"

#: Operations that layers run through natively, as plans and ledgers name them, and a recipe that has each.
_NATIVE = {
    "int8": "linears of 8-bit codes (rtn-w8a8, svdquant-w8a8)",
    "conv int8": "convolutions of 8-bit codes (rtn-w8a8)",
    "W4A4 fp8": "4-bit codes, power-of-two group scales (svdquant-w4a4-native)",
    "W4A4 int8": "4-bit codes, integer group scales (svdquant-w4a4-int-scale+input_search=0)",
    "W4A8 int8": "4-bit weights, 8-bit inputs (svdquant-w4a4-int-scale+activation_bits=8)",
    "W4A8 e4m3": "floats of 4 to 8 bits, float8 inputs (fp4-fp8-e4m3, fp8-fp8-e4m3)",
    "W4A4 table": "codebooks, binary codes, zero points (lrq-dit-w4a4, quest-w4a4, binarydm-w1a4)",
    "W4A16": "4-bit weights, 16-bit inputs (svdquant-w4a4-po2+activation_bits=null)",
}
_MORE = {"W4A4 fp8": "; products that torch does faster from the same codes are left to it (9.0 or newer)"}
_FIRST = "norms, GELU, GEGLU, SiLU before native layers, in their quantizers: a ledger says of which layers"
_ALWAYS_SIMULATED = "formats without a kernel: a plan says of each layer which and why"


class Settings(contract.Settings):
    """Show what this machine can do.

    Hardware, packages, disk, where things are kept, and which arithmetic is native or simulated here.
    """


class Result(contract.Result):
    """Checks (state, what, found, advice) and which low-bit products run natively here."""

    checks: list[dict[str, str]]
    recipes: list[dict[str, str]]
    ready: bool

    def tables(self) -> list[Table]:
        """Return the checks, then the arithmetic."""
        return [Table(self.checks, ("state", "what", "found", "advice")), Table(self.recipes)]


def run(settings: Settings, context: Context) -> Result:
    """Look at the machine."""
    context.check()
    checks = [_python(), _torch(), _memory(), _disk(Path.cwd()), _cache()]
    capability, gpu = _gpu()
    checks += [gpu, _triton(capability is not None), *_extras(), _weights()]
    return Result(
        checks=checks,
        recipes=[
            *map(_path_of, _NATIVE),
            {**_path_of("int8"), "arithmetic": "before a layer", "for": _FIRST},
            {"arithmetic": "other", "for": _ALWAYS_SIMULATED, "here": "simulated", "why": "no kernel"},
        ],
        ready=all(check["state"] != BAD for check in checks),
    )


def _check(state: str, what: str, found: str, advice: str = "") -> dict[str, str]:
    return {"state": state, "what": what, "found": found, "advice": advice}


def _python() -> dict[str, str]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    good = sys.version_info >= (3, 11)
    return _check(OK if good else BAD, "python", found, "" if good else "install Python 3.11 or newer")


def _torch() -> dict[str, str]:
    try:
        import torch
    except ImportError as error:
        return _check(BAD, "torch", "cannot be imported", f"pip install torch ({error})")
    return _check(OK, "torch", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _memory() -> dict[str, str]:
    import psutil

    memory = psutil.virtual_memory()
    enough = memory.available > 6e9
    found = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    return _check(OK if enough else NOTE, "memory", found, "" if enough else "the demo wants 6 GB")


def _disk(folder: Path) -> dict[str, str]:
    free = shutil.disk_usage(folder).free
    enough = free > 2e9
    return _check(
        OK if enough else NOTE,
        "disk",
        f"{free / 1e9:.1f} GB free here",
        "" if enough else "runs may fill the disk",
    )


def _cache() -> dict[str, str]:
    from lab.cache import VARIABLE, cache_folder

    folder = cache_folder()
    above = next(place for place in (folder, *folder.parents) if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        why = "cannot be written to" if above.is_dir() else "is a file"
        return _check(BAD, "cache", f"{above} {why}", f"let {VARIABLE} name a folder that can be written to")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    return _check(OK, "cache", f"{folder}, {size:.1f} MB", f"recordings and datasets; {VARIABLE} moves it")


def _gpu() -> tuple[tuple[int, int] | None, dict[str, str]]:
    try:
        import torch
    except ImportError:
        return None, _check(NOTE, "gpu", "not looked at without torch")
    if not torch.cuda.is_available():
        return None, _check(
            NOTE, "gpu", "none visible", "everything runs on the CPU; low-bit arithmetic is simulated"
        )
    capability = torch.cuda.get_device_capability()
    free, total = torch.cuda.mem_get_info()
    found = (
        f"{torch.cuda.get_device_name()}, compute capability {capability[0]}.{capability[1]}, "
        f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    )
    return capability, _check(OK, "gpu", found)


def _triton(has_gpu: bool) -> dict[str, str]:
    try:
        return _check(OK, "triton", version("triton"))
    except PackageNotFoundError:
        if has_gpu:
            return _check(
                BAD, "triton", "not installed", "pip install 'brainit-lab[gpu]' for the GPU kernels"
            )
        return _check(NOTE, "triton", "not installed", "only a GPU needs it")


def _extras() -> list[dict[str, str]]:
    rows = []
    for extra in sorted(set(EXTRA_OF.values()) - {"gpu", "dev"}):
        missing = [name for name, of in EXTRA_OF.items() if of == extra and find_spec(name) is None]
        advice = f"pip install 'brainit-lab[{extra}]' brings {', '.join(missing)}" if missing else ""
        rows.append(
            _check(
                NOTE if missing else OK, f"extra {extra}", "incomplete" if missing else "installed", advice
            )
        )
    return rows


def _weights() -> dict[str, str]:
    from lab import zoo

    there = zoo.names()
    if there:
        return _check(OK, "shipped models", ", ".join(there))
    return _check(BAD, "shipped models", "none found", "install again from a complete checkout or package")


def _path_of(op: str) -> dict[str, str]:
    try:
        import torch
    except ImportError:
        return {"arithmetic": op, "for": _NATIVE[op], "here": "simulated", "why": "torch cannot be imported"}
    from quant.layers.native.run import needs_of
    from quant.layers.native.ways import paths

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    why, needs = paths.obstacle(device, needs_of(op)), needs_of(op)
    if device.type == "cpu":
        why = f"no CUDA GPU; natively on compute capability {needs[0]}.{needs[1]} or newer"
    return {
        "arithmetic": op, "for": _NATIVE[op], "here": "simulated" if why else "native",
        "why": why or f"compute capability {needs[0]}.{needs[1]} or newer, and triton{_MORE.get(op, '')}",
    }  # fmt: skip
