"""What every figure is: a matplotlib figure with its caption, its alternative text and its theme."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

Theme = Literal["light", "dark"]

# Okabe & Ito's palette: told apart with any common colour vision deficiency. Markers differ as well.
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE, YELLOW = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#CC79A7",
    "#F0E442",
)
_INK = {
    "light": ("#1f2328", "#6b7280", "#e5e7eb", "#ffffff"),
    "dark": ("#e6e8eb", "#9aa3ad", "#30363d", "#161a1f"),
}


@dataclass(frozen=True)
class Provenance:
    """Where a figure's numbers come from; the last sentence of its caption.

    Parameters
    ----------
    source : str
        Dataset and subject, or model and layer.
    samples : str
        How many of what, such as "10 test pictures".
    seed : int or None
    config : str
        Hash of the settings.
    simulated : bool
        Whether the subject is simulated.
    """

    source: str
    samples: str = ""
    seed: int | None = None
    config: str = ""
    simulated: bool = False

    def sentence(self) -> str:
        """Say it in one sentence."""
        parts = [self.source + (" (simulated subject)" if self.simulated else ""), self.samples]
        parts += [f"seed {self.seed}"] if self.seed is not None else []
        parts += [f"settings {self.config}"] if self.config else []
        return "Source: " + ", ".join(p for p in parts if p) + "."


@dataclass(frozen=True)
class Plate:
    """A figure ready to be shown anywhere.

    Parameters
    ----------
    figure : matplotlib Figure
    caption : str
        What is seen and where it comes from.
    alt : str
        What a person who cannot see it should know.
    """

    figure: Figure
    caption: str
    alt: str

    def __post_init__(self) -> None:
        # Each drawing moves a constrained layout a little further; settled once, bytes are equal.
        for _ in range(2):  # long tick labels need more than one pass
            self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")

    def png(self, dpi: int = 144) -> bytes:
        """Return the figure as PNG."""
        buffer = io.BytesIO()
        # No software name or date: equal figures are equal bytes.
        self.figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        return buffer.getvalue()

    def svg(self) -> bytes:
        """Return the figure as SVG, text drawn as outlines so that it looks the same everywhere."""
        buffer = io.BytesIO()
        with mpl.rc_context(
            {"svg.hashsalt": "brainlab", "svg.fonttype": "path", "image.composite_image": True}
        ):
            self.figure.savefig(buffer, format="svg", dpi=144, metadata={"Date": None, "Creator": None})
        return buffer.getvalue()

    def uri(self, kind: Literal["png", "svg"] = "svg") -> str:
        """Return the figure as a data URI that loads nothing from anywhere."""
        content, mime = (self.png(), "image/png") if kind == "png" else (self.svg(), "image/svg+xml")
        return f"data:{mime};base64,{base64.b64encode(content).decode()}"

    def _repr_html_(self) -> str:
        alt, caption = html.escape(self.alt, quote=True), html.escape(self.caption)
        return f'<figure><img alt="{alt}" src="{self.uri()}"><figcaption>{caption}</figcaption></figure>'


def ink(theme: Theme) -> tuple[str, str, str, str]:
    """Return the colours of text, secondary text, lines and ground."""
    return _INK[theme]


def shade(colour: str, theme: Theme) -> str:
    """Return a colour that stands out on the theme's ground: the dark blue becomes sky blue on a dark one."""
    return SKY if theme == "dark" and colour == BLUE else colour


def canvas(width: float, height: float, theme: Theme) -> Figure:
    """Return an empty figure, inches, transparent so that it sits on any page of its theme."""
    # Outlined text is a little wider than measured on screen; the padding keeps labels inside.
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.05)
    figure = Figure(figsize=(width, height), layout=layout)
    figure.patch.set_alpha(0)
    return figure


def axes(figure: Figure, *position: int, theme: Theme, grid: Literal["", "x", "y"] = ""):
    """Add axes in the house style: two spines, quiet ticks, grid lines on one axis if asked ("x" or "y")."""
    text, quiet, line, _ = ink(theme)
    ax = figure.add_subplot(*(position or (1, 1, 1)))
    ax.set_facecolor("none")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(quiet)
    ax.tick_params(colors=quiet, labelcolor=text, labelsize=9)
    for item in (ax.xaxis.label, ax.yaxis.label, ax.title):
        item.set_color(text)
        item.set_fontsize(10)
    if grid:
        ax.grid(axis=grid, color=line, linewidth=0.8)
        ax.set_axisbelow(True)
    return ax


def legend(ax, theme: Theme, **options) -> None:
    """Add a legend without a frame, in the theme's text colour."""
    ax.legend(frameon=False, fontsize=9, labelcolor=ink(theme)[0], **options)
