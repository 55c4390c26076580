"""What leaves a page: the same question has the same run folder, another one has another."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gradio")

from lab.app import inspect_page
from lab.app.compare import page as compare_page
from lab.app.copying import run_of
from lab.errors import InputError


def test_a_page_has_a_folder_of_its_own_wherever_the_runs_are(tmp_path: Path) -> None:
    one, again, other = (
        run_of(home, "inspect", *inspect_page.page_of(model, ""))
        for home, model in ((tmp_path, "dit-64"), (tmp_path / "x", "dit-64"), (tmp_path, "unet-64"))
    )
    assert one.out.parent == tmp_path and one.out.name == again.out.name != other.out.name
    assert one.out.name.startswith("inspect-dit-64-") and one.model == "dit-64"


def test_a_comparisons_page_is_of_what_the_controls_say_and_needs_four_pictures(tmp_path: Path) -> None:
    def asked(n: int) -> object:
        given = compare_page.page_of("dit-64", ["rtn-w4a4"], n, 10, 2.0, 0, False, "")
        return run_of(tmp_path, "compare", *given)

    found = asked(4)
    assert (found.recipes, found.n, found.seeds, found.steps) == (("rtn-w4a4",), 4, 1, 10)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="n"):
        asked(2)
