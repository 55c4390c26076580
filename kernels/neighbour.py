"""Names of the other `kernels` distribution, looked up in its own `__init__` under a private module name."""

from __future__ import annotations

import importlib.util
import sys
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

_PRIVATE = "kernels._neighbour_init"


@lru_cache(maxsize=1)
def find() -> Path | None:
    """Folder of the other distribution's package on the import path, or None."""
    ours = Path(__file__).resolve().parent
    for entry in sys.modules[__package__].__path__:  # importing it would close a circle
        folder = Path(entry).resolve()
        if folder != ours and (folder / "__init__.py").is_file():
            return folder
    return None


def lookup(name: str) -> Any:
    """Attribute `name` of the other distribution's package.

    Raises
    ------
    AttributeError
        It is not installed or has no such name, worded as Python itself would.
    """
    # `from kernels import packing` asks for an attribute before it tries the submodule
    missing = AttributeError(f"module 'kernels' has no attribute {name!r}")
    if find() is None:
        raise missing
    try:
        return getattr(_load(), name)
    except AttributeError:
        pass
    try:
        return import_module(f"kernels.{name}")
    except ModuleNotFoundError:
        raise missing from None


def _load() -> ModuleType:
    """Run the other package's `__init__` once; its absolute imports resolve over our extended path."""
    if _PRIVATE in sys.modules:
        return sys.modules[_PRIVATE]
    folder = find()
    assert folder is not None  # lookup has checked
    spec = importlib.util.spec_from_file_location(_PRIVATE, folder / "__init__.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot read {folder / '__init__.py'}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_PRIVATE] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[_PRIVATE]
        raise
    return module
