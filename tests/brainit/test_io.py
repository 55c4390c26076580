"""Files are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from brainit.io import hash_file, replacing, write_state, write_text


def test_a_file_appears_whole_in_a_folder_that_was_missing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "first\n")
    assert path.read_text() == "first\n" and [p.name for p in path.parent.iterdir()] == ["a.txt"]
    assert hash_file(path) == hashlib.sha256(b"first\n").hexdigest()


def test_tensors_can_be_read_by_whom_the_folder_lets_read(tmp_path: Path) -> None:
    """A trained decoder was readable by its owner alone, whatever the umask."""
    write_text(tmp_path / "plain.txt", "")
    write_state(tmp_path / "a.safetensors", {"a": torch.ones(1)}, {})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_old_file_stays_if_writing_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as temporary:
        assert temporary.suffix == ".npz" and temporary.parent == tmp_path
        temporary.write_bytes(b"half")
        raise error("planted")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
