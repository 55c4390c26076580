"""Put digits69 in place: python data_scripts/digits69.py path/to/digit69_28x28.mat [--root DIR]."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from _common import finish

from brainit import datasets
from brainit.datasets.digits69 import FILE
from brainit.errors import InputError, MissingDataError
from brainit.io import hash_file

SHA256 = "44513e09ad2398566aedd550088b817a3c0bf9cd7873f87078ecd7fdf170b22d"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help=f"your copy of {FILE}")
    parser.add_argument("--root", type=Path, default=datasets.default_root("digits69"), help="folder to fill")
    arguments = parser.parse_args()

    def prepare() -> Path:
        if not arguments.file.is_file():
            raise MissingDataError(f"{arguments.file} does not exist; {datasets.describe('digits69')['how']}")
        if hash_file(arguments.file) != SHA256:
            sys.stderr.write(
                f"warning: {arguments.file} is not the file that published numbers were made with\n"
            )
        there = arguments.root / FILE
        if there.is_file() and hash_file(there) != hash_file(arguments.file):
            raise InputError(f"{there} is another file; remove it first, or give another --root")
        arguments.root.mkdir(parents=True, exist_ok=True)
        part = arguments.root / f".{FILE}.part"
        shutil.copyfile(arguments.file, part)
        part.replace(arguments.root / FILE)
        return arguments.root

    return finish("digits69", prepare)


if __name__ == "__main__":
    raise SystemExit(main())
