"""The folder that training goes on from belongs to one piece of work, and refuses another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import quant
from quant.training.state import State


class Killed(BaseException):
    pass


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    state = State(tmp_path / "s", {"seed": 1})
    assert state.get("a") is None
    state.put("a", {"x": torch.arange(3.0)}, {"step": 4, "name": "è"})
    state.put("a", {"x": torch.arange(4.0)}, {"step": 5})
    found = State(tmp_path / "s", {"seed": 1}).get("a")
    assert found is not None and torch.equal(found.tensors["x"], torch.arange(4.0))
    assert found.values == {"step": 5}
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["a.safetensors", "state.json"]
    nothing = State()
    nothing.put("a", {}, {})
    assert nothing.get("a") is None


def test_another_work_is_refused(tmp_path: Path) -> None:
    State(tmp_path / "s", {"seed": 1, "config": {"rank": 4}})
    with pytest.raises(
        quant.InputError, match=r"config\.rank = 4, asked for 8: use another folder"
    ) as caught:
        State(tmp_path / "s", {"seed": 1, "config": {"rank": 8}})
    assert caught.value.exit_code == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(quant.InputError, match="holds other files"):
        State(tmp_path / "other", {})
    with pytest.raises(quant.InputError, match="is a file"):
        State(tmp_path / "other" / "thesis.txt", {})


def test_damage_is_named(tmp_path: Path) -> None:
    state = State(tmp_path / "s", {})
    state.put("a", {"x": torch.zeros(1)}, {})
    (tmp_path / "s" / "a.safetensors").write_bytes(b"torn")
    with pytest.raises(quant.InputError, match=r"a\.safetensors is damaged: delete"):
        state.get("a")
    (tmp_path / "s" / "state.json").write_text("{")
    with pytest.raises(quant.InputError, match=r"state\.json is damaged"):
        State(tmp_path / "s", {})


def test_its_end_leaves_nothing_even_if_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(tmp_path / "s", {"seed": 1})
    for key in ("a", "z"):
        state.put(key, {}, {})
    real = Path.unlink

    def unlink(file: Path, **given: bool) -> None:
        if file.name.startswith("z"):
            raise Killed
        real(file, **given)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "unlink", unlink)
        state.remove()
    state = State(tmp_path / "s", {"seed": 1})  # still the same work's
    assert state.get("a") is None and state.get("z") is not None
    state.remove()
    assert not (tmp_path / "s").exists()
    State().remove()
