"""Which tiles a kernel uses for a shape on a device: measured ones where there are, else safe defaults."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from kernels.tuned.configs import Config

Shape = tuple[int, ...]

SHIPPED = Path(__file__).resolve().parent / "tables"

DEFAULTS: dict[str, list[tuple[int, Config]]] = {
    # (least number of output elements, config), largest first
    "gemm_int8": [
        (2**22, Config(128, 256, 64, 6, 8, queued=True)),
        (2**18, Config(128, 128, 128, 5, 4, queued=True)),
        (0, Config(64, 64, 128, 4, 4)),
    ],
    "gemm_fp8": [
        (2**22, Config(128, 256, 128, 3, 8)),
        (2**18, Config(128, 128, 128, 4, 8)),
        (0, Config(64, 64, 128, 4, 4)),
    ],
    "gemm_int8_rank": [
        (2**22, Config(128, 256, 64, 5, 8, queued=True)),
        (2**18, Config(128, 128, 128, 4, 4, queued=True)),
        (0, Config(64, 64, 128, 4, 4)),
    ],
    "gemm_fp8_rank": [
        (2**22, Config(128, 256, 128, 3, 8, halves=2)),
        (2**18, Config(128, 128, 128, 4, 8)),
        (0, Config(64, 64, 128, 4, 4)),
    ],
    "product_fp8": [(2**18, Config(vendor=True)), (0, Config())],
    "few_rows": [(0, Config(16, 64, 256, 4, 2, split=4, keep=True))],
    "quantize": [(0, Config(16, 1, 256, 3, 4))],
    "quantize_norm": [(0, Config(16, 1, 256, 1, 8, keep=True))],
    "expand_table": [(0, Config(1, 8, 512, 1, 4))],
    "log_attention": [(0, Config(64, 64, 64, 3, 4))],
    "conv2d": [(2**20, Config(128, 128, 128, 4, 8)), (0, Config(64, 64, 128, 4, 4))],
    "quantize_many": [(0, Config(64, 512, 128, 4, 4, group_m=4, split=4))],
    "quantize_plain": [(0, Config(4, 1, 512, 3, 4))],
    "expand": [(0, Config(1, 4, 2048, 1, 4))],
}


def lookup(kind: str, shape: Shape, device: torch.device) -> Config:
    """Config for a kernel at a shape.

    Parameters
    ----------
    kind : str
        A key of `DEFAULTS`.
    shape : tuple of int
        (M, N, K); the number of output elements picks among defaults.
    device : torch.device
    """
    measured = tables(device_name(device)).get(kind, {}).get(key_of(shape))
    if measured is not None:
        return measured
    size = shape[0] * shape[1]
    return next(config for least, config in DEFAULTS[kind] if size >= least)


def key_of(shape: Shape) -> str:
    """Key of a shape in a table; rows are rounded up to a power of two, as neighbours want the same tiles."""
    rows = 1 << max(shape[0] - 1, 0).bit_length()
    return "x".join(map(str, (rows, *shape[1:])))


@lru_cache(maxsize=8)
def device_name(device: torch.device) -> str:
    """Name of the device's table, as ``nvidia-h200``."""
    if device.type != "cuda":
        return "cpu"
    return torch.cuda.get_device_name(device).lower().replace(" ", "-")


def cache_file(name: str) -> Path:
    """Where configs tuned on this machine are kept."""
    root = os.environ.get("BRAINLAB_KERNEL_CACHE") or Path.home() / ".cache" / "brainlab" / "kernels"
    return Path(root) / f"{name}.json"


@lru_cache(maxsize=8)
def tables(name: str) -> dict[str, dict[str, Config]]:
    """Measured configs by kernel and shape: the shipped table, overridden by this machine's."""
    merged: dict[str, dict[str, Config]] = {}
    for file in (SHIPPED / f"{name}.json", cache_file(name)):
        for kind, entries in read(file).items():
            merged.setdefault(kind, {}).update(entries)
    return merged


def read(file: Path) -> dict[str, dict[str, Config]]:
    """Read one table; a file that does not exist is an empty one.

    Raises
    ------
    ValueError
        The file is not a table.
    """
    if not file.is_file():
        return {}
    try:
        raw = json.loads(file.read_text())
        found = {k: {s: Config.from_json(c) for s, c in v.items()} for k, v in raw["configs"].items()}
        same = raw.get("measured", {}).get("triton") == triton_version()
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{file} is not a table of tuned kernels ({error}); delete it and tune again"
        ) from error
    # whether warps that only fetch, and what is written in Gluon, can be built depends on the compiler
    return {k: {s: c for s, c in v.items() if same or not (c.special or c.queued)} for k, v in found.items()}


@lru_cache(maxsize=1)
def triton_version() -> str:
    """Version of the installed triton; empty without one."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return ""


def write(file: Path, configs: dict[str, dict[str, Config]], note: dict[str, str]) -> None:
    """Write a table under a temporary name and rename it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    body = {
        "measured": note,
        "configs": {k: {s: c.to_json() for s, c in sorted(v.items())} for k, v in sorted(configs.items())},
    }
    temporary = file.with_suffix(".partial")
    temporary.write_text(json.dumps(body, indent=1) + "\n")
    os.replace(temporary, file)
    tables.cache_clear()
