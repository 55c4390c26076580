"""Jobs behind ``brainlab data``: plain data in, plain data out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.errors import InputError
from lab.progress import Progress, silent


def list_all() -> list[dict[str, Any]]:
    """Return every dataset's description."""
    from brainit import datasets

    return [datasets.describe(name) for name in datasets.list_datasets()]


def info(name: str) -> dict[str, Any]:
    """Return one dataset's description and where it is looked for by default."""
    from brainit import datasets

    return {**datasets.describe(name), "default_root": str(datasets.default_root(name))}


def fetch(name: str, root: Path | None = None, progress: Progress = silent, **options: Any) -> dict[str, Any]:
    """Download or make a dataset; return its name and folder.

    ``options`` (preset, seed, stimuli, test_stimuli, features) are for datasets that are made here.
    """
    from brainit import datasets

    given = {key: value for key, value in options.items() if value is not None}
    if name == "simulated":
        from lab.decoding.simulated import ensure_simulated

        return {"dataset": name, "root": str(ensure_simulated(root, progress=progress, **given))}
    datasets.describe(name)
    if given:
        raise InputError(f"dataset {name!r} is not made here; --{next(iter(given))} is only for simulated")
    return {"dataset": name, "root": str(datasets.fetch(name, root, progress))}


def check(name: str, root: Path | None = None) -> dict[str, Any]:
    """Test a dataset's folder before any long work.

    Returns
    -------
    dict
        ``findings`` (severity, message), ``usable`` and a one-line ``verdict``.

    Raises
    ------
    MissingDataError
        If nothing is there at all.
    """
    from brainit import datasets

    if name == "simulated":
        root = Path(fetch(name, root)["root"])
    datasets.subjects(name, root)
    findings = [asdict(finding) for finding in datasets.check(name, root)]
    count = {kind: sum(f["severity"] == kind for f in findings) for kind in ("error", "warning")}
    usable = count["error"] == 0
    word = "usable" if usable else "not usable"
    verdict = f"{name}: {word}, {count['error']} errors, {count['warning']} warnings"
    return {"dataset": name, "usable": usable, "verdict": verdict, "findings": findings}
