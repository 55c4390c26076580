"""What took part in a result."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import metadata

PACKAGES = ("brainit-lab", "torch", "diffusers", "safetensors")


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of the packages that a result depends on; those that are not installed are left out."""
    found = {}
    for name in packages:
        try:
            found[name] = _version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


_version = cache(metadata.version)
"""Does not change while a process runs; looking it up takes longer than quantizing a small layer."""
