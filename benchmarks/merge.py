"""Put comparisons of several machines together, where their settings are equal.

    python -m benchmarks.merge runs/first runs/second --out runs/both

Afterwards ``brainlab compare`` with ``--out runs/both`` and all recipes finds every measurement there, and
writes tables and report of all of them.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.errors import InputError, MissingDataError
from lab.files import replacing
from lab.models.preflight import check_run_folder
from lab.runs.metrics import differences
from lab.runs.settings import read_settings


def merge(folders: Sequence[Path], out: Path) -> int:
    """Copy finished measurements into one folder; return how many files it holds.

    Raises
    ------
    InputError
        The folders' settings differ.
    MissingDataError
        A folder is not a comparison.
    """
    check_run_folder(out)
    first = None
    for folder in folders:
        if not (folder / "steps").is_dir():
            raise MissingDataError(f"{folder} holds no comparison; give folders that brainlab compare wrote")
        settings = read_settings(folder / "config.yaml")
        changed: list[str] = differences(first, settings) if first is not None else []
        if changed:
            raise InputError(f"{folder} was made with other settings than {folders[0]}: {changed[0]}")
        first = first or settings
    for folder in folders:
        # a measurement's JSON goes last: it says that the rest is there
        for file in (
            folder / "config.yaml",
            *sorted((folder / "steps").iterdir(), key=lambda f: f.suffix == ".json"),
        ):
            target = out / file.relative_to(folder)
            if not target.exists():
                with replacing(target) as temporary:
                    shutil.copyfile(file, temporary)
    return len(list((out / "steps").iterdir()))


def main() -> None:
    """Merge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    print(f"{merge(given.folders, given.out)} files in {given.out}")


if __name__ == "__main__":
    main()
