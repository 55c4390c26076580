"""Work in progress belongs to its settings: nothing goes on with that of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import InputError
from lab.zoo.io import claim


def test_work_of_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    started, state = tmp_path / "a.settings.json", tmp_path / "a.state.safetensors"

    def begin(**about: object) -> None:
        claim(started, about, "a training", [state])

    begin(seed=0, betas=(0.9, 0.99))
    begin(seed=1, betas=(0.9, 0.99))  # nothing was done yet
    state.write_bytes(b"some")
    begin(seed=1, betas=(0.9, 0.99))
    with pytest.raises(
        InputError, match=r"holds a training with another seed; .* delete a\.state\.safetensors"
    ):
        begin(seed=0, betas=(0.9, 0.99))
    begin(seed=1, betas=(0.9, 0.99), weights="abc")  # what was not noted before is noted now
    with pytest.raises(InputError, match="another weights"):
        begin(seed=1, betas=(0.9, 0.99), weights="def")
