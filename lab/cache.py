"""The one folder for what is made once and used by many commands: recordings of sampling, datasets."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "BRAINLAB_CACHE"


def cache_folder(*inside: str) -> Path:
    """Return ``$BRAINLAB_CACHE``, else ``brainlab`` in the user's cache (``~/.cache`` on Linux).

    Parameters
    ----------
    *inside : str
        Folders below it.
    """
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser().absolute().joinpath(*inside)
    import pooch

    return Path(pooch.os_cache("brainlab")).joinpath(*inside)
