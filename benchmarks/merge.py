"""Put comparisons of several machines together, where their settings are equal.

    python -m benchmarks.merge runs/first runs/second --out runs/both

Afterwards ``brainlab compare`` with ``--out runs/both`` and all recipes finds every measurement there, and
writes tables and report of all of them. ``--small`` leaves the pictures of reports out, nine tenths of the
bytes: for a comparison that is to be taken along and go on elsewhere.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.compare.results import ABOUT
from lab.errors import InputError, MissingDataError
from lab.files import replacing
from lab.models.preflight import check_run_folder
from lab.runs.metrics import differences
from lab.runs.settings import read_settings
from lab.runs.steps import StepCache


def merge(folders: Sequence[Path], out: Path, small: bool = False) -> int:
    """Copy finished measurements into one folder; return how many files it holds.

    Parameters
    ----------
    small : bool
        Without the pictures.

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
        steps = sorted((folder / "steps").iterdir(), key=lambda f: f.suffix == ".json")
        if small:
            steps = []
            _without_pictures(folder / "steps", out / "steps")
        described = [folder / ABOUT] if (folder / ABOUT).is_file() else []
        for file in (folder / "config.yaml", *described, *steps):
            target = out / file.relative_to(folder)
            if not target.exists():
                with replacing(target) as temporary:
                    shutil.copyfile(file, temporary)
    return len(list((out / "steps").iterdir()))


def _without_pictures(folder: Path, out: Path) -> None:
    whole, small = StepCache(folder), StepCache(out)
    for file in sorted(folder.glob("*.json")):
        output = None if (out / file.name).is_file() else whole.load(file.stem)
        if output is not None:
            output.pop("pictures", None)
            small.save(file.stem, output, json.loads(file.read_text(encoding="utf-8"))["seconds"])


def main() -> None:
    """Merge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="without the pictures of reports")
    given = parser.parse_args()
    print(f"{merge(given.folders, given.out, given.small)} files in {given.out}")


if __name__ == "__main__":
    main()
