"""A page that shows itself: in a notebook, in a file, in the browser."""

from __future__ import annotations

import html
from pathlib import Path

from lab.files import write_text


class HTMLDocument:
    """A complete, self-contained HTML page.

    Parameters
    ----------
    page : str
        The whole document, from its doctype on.
    width, height : int or str
        Size of the frame that a notebook shows it in.
    """

    def __init__(self, page: str, width: int | str = "100%", height: int | str = 700) -> None:
        self.html = page
        self.width = width
        self.height = height

    def get_iframe(self, width: int | str | None = None, height: int | str | None = None) -> str:
        """Return an iframe that holds the page itself, not a link to it."""
        width, height = (self.width if width is None else width), (self.height if height is None else height)
        content = html.escape(self.html, quote=True)
        size = f'width="{width}" height="{height}" style="border:0"'
        # Without same-origin rights the framed page cannot reach into the notebook.
        return f'<iframe srcdoc="{content}" {size} sandbox="allow-scripts" title="report"></iframe>'

    def save_as_html(self, path: Path | str) -> Path:
        """Write the page to a file, at once, and return the path."""
        path = Path(path)
        write_text(path, self.html)
        return path

    def _repr_html_(self) -> str:
        return self.get_iframe()

    def __str__(self) -> str:
        return self.html
