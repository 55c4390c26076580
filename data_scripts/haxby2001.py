"""Download haxby2001, subject 2, with nilearn: python data_scripts/haxby2001.py [--root DIR]."""

from __future__ import annotations

import argparse
from pathlib import Path

from _common import finish, progress

from brainit import datasets


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--root", type=Path, default=datasets.default_root("haxby2001"), help="folder to fill"
    )
    arguments = parser.parse_args()
    return finish("haxby2001", lambda: datasets.fetch("haxby2001", arguments.root, progress))


if __name__ == "__main__":
    raise SystemExit(main())
