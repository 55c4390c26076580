"""Every notebook runs from top to bottom; what is saved in it is small and asks nothing of the outside."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("anywidget")

HOME = Path(__file__).resolve().parents[2]
BOOKS = sorted((HOME / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One working folder: what one notebook trains, the next one finds."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.slow
@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_it_runs(book: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    content = nbformat.read(book, as_version=4)
    client = nbclient.NotebookClient(
        content, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(place)}}
    )
    client.execute()
    assert not [o for cell in _code(content) for o in cell.outputs if o.output_type == "error"]
    assert all(cell.outputs for cell in _code(content)[-1:])
    assert len(nbformat.writes(content)) < 1_000_000


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_what_is_saved_is_small_and_shows_something(book: Path) -> None:
    content, text = nbformat.read(book, as_version=4), book.read_text()
    assert len(text) < 1_000_000 and len(content.cells) <= 12
    assert _code(content)[-1].outputs, "execute and save it"
    assert not re.search(r"<(script|link|img)[^>]+https?://", text)
    assert content.cells[0].cell_type == "markdown" and content.cells[0].source.startswith("# ")
    assert str(Path.home()) not in text and "/work/" not in text


def _code(content: Any) -> list[Any]:
    return [cell for cell in content.cells if cell.cell_type == "code"]
