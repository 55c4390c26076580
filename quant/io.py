"""Files that are whole or not there, their hashes and metadata, and YAML in which nothing is said twice."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

TEMPORARY = ".part"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it on success, remove it on any failure.

    Parameters
    ----------
    path : Path
        The file to appear. Missing parent folders are made.

    Yields
    ------
    Path
        Name to write to; it ends in the same suffix, since some writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{TEMPORARY}{path.suffix}")
    try:
        temporary.touch()
        usual = temporary.stat().st_mode
        temporary.unlink()
        yield temporary
        temporary.chmod(usual)  # safetensors makes files that nobody else of a shared folder can read
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())  # a rename must not overtake the bytes it names
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file at once."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sort_metadata(path: Path) -> None:
    """Order the metadata of a safetensors file in place: safetensors shuffles it from call to call.

    For files with several entries: equal content must give equal bytes. The same entries take the same room
    in any order; padding makes up for what JSON writers may do differently.
    """
    with path.open("r+b") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        head = json.loads(file.read(size))
        head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
        text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > size:
            raise RuntimeError(f"header of {path} grew from {size} to {len(text)} bytes when sorted")
        file.seek(8)
        file.write(text.ljust(size))


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_yaml(text: str) -> Any:
    """Read YAML or JSON; unlike ``yaml.safe_load`` it refuses a name that stands twice in one section.

    Raises
    ------
    yaml.YAMLError
        It is neither, or a name stands twice.
    """
    import yaml

    return yaml.load(text, _once())


@cache
def _once() -> Any:
    import yaml

    class Once(yaml.SafeLoader):
        """A safe loader that says so where the last of two values would win in silence."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue  # no name; what cannot be one at all is refused below
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return Once
