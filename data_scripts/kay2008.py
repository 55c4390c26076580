"""Get kay2008 (about 190 MB) from OSF: python data_scripts/kay2008.py [--root DIR]."""

from __future__ import annotations

import argparse
from pathlib import Path

from _common import finish, progress

from brainit import datasets


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=datasets.default_root("kay2008"), help="folder to fill")
    arguments = parser.parse_args()
    return finish("kay2008", lambda: datasets.fetch("kay2008", arguments.root, progress))


if __name__ == "__main__":
    raise SystemExit(main())
