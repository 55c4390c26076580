"""Files are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from quant.io import hash_file, read_yaml, replacing, sort_metadata, write_text


def test_a_file_appears_whole_in_a_folder_that_was_missing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "first\n")
    assert path.read_text() == "first\n" and [p.name for p in path.parent.iterdir()] == ["a.txt"]
    assert hash_file(path) == hashlib.sha256(b"first\n").hexdigest()


def test_tensors_can_be_read_by_whom_the_folder_lets_read(tmp_path: Path) -> None:
    """A packed model or a recording was readable by its owner alone, whatever the umask."""
    plain, path = tmp_path / "plain.txt", tmp_path / "a.safetensors"
    plain.touch()
    with replacing(path) as temporary:
        save_file({"a": torch.ones(1)}, temporary)
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_old_file_stays_if_writing_fails(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as temporary:
        assert temporary.suffix == ".npz" and temporary.parent == tmp_path
        temporary.write_bytes(b"half")
        raise error("planted")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_equal_metadata_give_equal_bytes(tmp_path: Path) -> None:
    about = {name: f"{name} è" for name in "abcdefgh"}
    written = set()
    for _ in range(5):
        save_file({"x": torch.ones(3)}, tmp_path / "a", metadata=about)
        sort_metadata(tmp_path / "a")
        written.add((tmp_path / "a").read_bytes())
    with safe_open(tmp_path / "a", framework="pt") as file:
        assert file.metadata() == about and file.get_tensor("x").tolist() == [1, 1, 1]
    assert len(written) == 1


def test_a_name_that_stands_twice_in_one_section_is_refused() -> None:
    assert read_yaml("a: {x: 1}\nb: {x: 2}\nc: [1, 2]") == {"a": {"x": 1}, "b": {"x": 2}, "c": [1, 2]}
    assert read_yaml('{"a": 1.5, "b": null}') == {"a": 1.5, "b": None} and read_yaml("") is None
    for text in ("a: 1\na: 2", "a: {x: 1, x: 2}", '{"a": 1, "a": 1}'):
        with pytest.raises(yaml.YAMLError, match="is given twice"):
            read_yaml(text)
    for text in ("a: {{name}}", "? [a, b]\n: 1"):  # no name at all
        with pytest.raises(yaml.YAMLError, match="unhashable"):
            read_yaml(text)
