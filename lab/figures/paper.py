"""A figure as papers print it: vectors, the width of a column, text of one size, no title."""

from __future__ import annotations

import io
import pickle
import textwrap
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.text import Text

from lab.figures.plate import Plate
from lab.figures.tradeoff import folded

Kind = Literal["pdf", "svg"]
_SHORTEST = 0.8  # share of its height that a figure keeps when it is made narrower


def for_paper(plate: Plate, kind: Kind = "pdf", width: float = 3.4, points: float = 8.0) -> bytes:
    """Draw a figure anew for print.

    The plot is laid out again, so that text has the size that is asked for and not a scaled one. A title that
    names the whole figure goes (papers have captions); titles that tell panels apart stay.

    Parameters
    ----------
    plate : Plate
        In the light theme. It stays as it is.
    kind : {"pdf", "svg"}
        Text stays text in a PDF (TrueType); the caption is in its metadata.
    width : float
        Inches; figures of three panels and more side by side take twice as much.
    points : float
        Size of all text.
    """
    # our own bytes; a deep copy loses what legends and panels hold of their figure
    figure: Figure = pickle.loads(pickle.dumps(plate.figure))
    wide, high = figure.get_size_inches()
    width *= 2 if _columns(figure) > 2 else 1
    high *= max(width / wide, _SHORTEST)
    titles = [title for ax in figure.axes for title in (ax.title, ax._left_title, ax._right_title)]  # type: ignore[attr-defined]
    shown = [title for title in titles if title.get_text()]
    if len(shown) == 1:
        shown[0].set_text("")
    _legends_below(figure, width, points)
    for ax in figure.axes:
        ax.tick_params(which="both", labelsize=points)
        ax.set_xlabel(_wrapped(ax.get_xlabel(), width, points))
        ax.set_ylabel(_wrapped(ax.get_ylabel(), 0.8 * high, points))
    for text in figure.findobj(Text):
        text.set_fontsize(points)
    figure.set_size_inches(width, high)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
    about = {"Subject": plate.caption, "CreationDate": None, "Creator": None, "Producer": None}
    if kind == "svg":
        about = {"Description": plate.caption, "Date": None, "Creator": None}
    buffer = io.BytesIO()
    with mpl.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "brainlab"}):
        figure.savefig(buffer, format=kind, metadata=about)
    return buffer.getvalue()


def _columns(figure: Figure) -> int:
    return len({round(ax.get_position().x0, 2) for ax in figure.axes if ax.get_xlabel() or ax.get_title()})


def _wrapped(label: str, inches: float, points: float) -> str:
    return "\n".join(textwrap.wrap(label, max(12, int(inches * 72 / (0.55 * points)))))


def _legends_below(figure: Figure, width: float, points: float) -> None:
    """Put every legend below its figure, in as many columns as the width has room for."""
    entries: dict[str, Any] = {}
    for owner in (*figure.axes, figure):
        for legend in [child for child in owner.get_children() if isinstance(child, Legend)]:
            entries |= {
                text.get_text(): handle
                for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
            }
            legend.remove()
    if not entries:
        return
    room = int(width * 72 / (0.55 * points))  # characters; the sign and the gap are as wide as five
    names = [folded(name.replace("\n+", "+"), room - 5) for name in entries]
    longest = max(len(line) for name in names for line in name.split("\n")) + 5
    columns = max(1, room // longest)
    figure.legend(
        list(entries.values()), names, loc="outside lower center", frameon=False,
        ncols=min(len(entries), columns), fontsize=points,
    )  # fmt: skip
