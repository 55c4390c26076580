"""What every figure is: a matplotlib figure with its caption, its alternative text and its theme."""

from __future__ import annotations

import base64
import html
import io
import re
import textwrap
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogFormatterSciNotation

Theme = Literal["light", "dark"]
_DPI = 144
_HEAVY = 40_000  # bytes of an SVG, mostly outlines of letters
_FOOT_SIZE = 7.5  # points

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
    version : str
        Of the program, for figures that leave their page.
    leaks : str
        What the leak check found, where the numbers are scores.
    """

    source: str
    samples: str = ""
    seed: int | None = None
    config: str = ""
    simulated: bool = False
    version: str = ""
    leaks: str = ""

    def sentence(self) -> str:
        """Say it in one sentence."""
        parts = [self.source + (" (simulated subject)" if self.simulated else ""), self.samples]
        parts += [f"seed {self.seed}"] if self.seed is not None else []
        parts += [f"settings {self.config}"] if self.config else []
        parts += [f"brainit-lab {self.version}"] if self.version else []
        source = "Source: " + ", ".join(p for p in parts if p) + "."
        return f"{source} {self.leaks[0].upper()}{self.leaks[1:]}." if self.leaks else source


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
        for ax in self.figure.axes:
            for axis in (ax.xaxis, ax.yaxis):
                _write_plainly(axis)
        # Each drawing moves a constrained layout a little further; settled once, bytes are equal.
        engine = self.figure.get_layout_engine()
        if engine is not None:
            for _ in range(2):  # long tick labels need more than one pass
                engine.execute(self.figure)
        self.figure.set_layout_engine("none")

    def png(self, dpi: int = _DPI, foot: bool = False) -> bytes:
        """Return the figure as PNG, its caption in the file's metadata.

        Parameters
        ----------
        dpi : int
        foot : bool
            Write the caption below the figure as well: a file that is passed on keeps its source.
        """
        buffer = io.BytesIO()
        # No software name or date: equal figures are equal bytes.
        about = {"Software": None, "Description": self.caption}
        self.figure.savefig(buffer, format="png", dpi=dpi, metadata=about)
        return self._footed(buffer, dpi) if foot else buffer.getvalue()

    def pixels(self) -> Any:
        """Return the figure on a white ground: uint8 (H, W, 3)."""
        import numpy as np
        from PIL import Image

        drawn = Image.open(io.BytesIO(self.png())).convert("RGBA")
        ground = Image.new("RGBA", drawn.size, "white")
        return np.asarray(Image.alpha_composite(ground, drawn).convert("RGB"))

    def _footed(self, drawn: io.BytesIO, dpi: int) -> bytes:
        """Put the caption below a drawing, as a figure of its own: the drawing's own layout stays."""
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        width = self.figure.get_size_inches()[0]
        lines = textwrap.wrap(self.caption, int((width - 0.2) * 72 / (0.55 * _FOOT_SIZE)))
        below = Figure(figsize=(width, (1.4 * len(lines) + 1) * _FOOT_SIZE / 72))
        below.patch.set_alpha(0)
        colour = self.figure.axes[0].title.get_color() if self.figure.axes else "black"
        below.text(0.1 / width, 1, "\n".join(lines), va="top", size=_FOOT_SIZE, color=colour, linespacing=1.3)
        text = io.BytesIO()
        below.savefig(text, format="png", dpi=dpi)
        top, bottom = Image.open(drawn).convert("RGBA"), Image.open(text).convert("RGBA")
        sheet = Image.new("RGBA", (top.width, top.height + bottom.height), (255, 255, 255, 0))
        sheet.paste(top, (0, 0))
        sheet.paste(bottom, (0, top.height))
        info, out = PngInfo(), io.BytesIO()
        info.add_itxt("Description", self.caption)
        sheet.save(out, "PNG", pnginfo=info, dpi=(dpi, dpi))
        return out.getvalue()

    def svg(self) -> bytes:
        """Return the figure as SVG, text drawn as outlines so that it looks the same everywhere."""
        buffer = io.BytesIO()
        with mpl.rc_context(
            {"svg.hashsalt": "brainlab", "svg.fonttype": "path", "image.composite_image": True}
        ):
            self.figure.savefig(buffer, format="svg", dpi=_DPI, metadata={"Date": None, "Creator": None})
        return buffer.getvalue()

    def uri(self, kind: Literal["png", "svg", "light"] = "svg") -> str:
        """Return the figure as a data URI that loads nothing from anywhere.

        Parameters
        ----------
        kind : {"png", "svg", "light"}
            "light": SVG unless it is heavy, then lossless WebP; pages with dozens of figures open at once.
        """
        content, mime = (self.png(), "image/png") if kind == "png" else (self.svg(), "image/svg+xml")
        if kind == "light" and len(content) > _HEAVY:
            from PIL import Image

            buffer = io.BytesIO()
            Image.open(io.BytesIO(self.png())).save(buffer, "WEBP", lossless=True, quality=50, method=2)
            content, mime = buffer.getvalue(), "image/webp"
        return f"data:{mime};base64,{base64.b64encode(content).decode()}"

    def _repr_html_(self) -> str:
        alt, caption = html.escape(self.alt, quote=True), html.escape(self.caption)
        return f'<figure><img alt="{alt}" src="{self.uri()}"><figcaption>{caption}</figcaption></figure>'


class _Powers(LogFormatterSciNotation):
    """Powers as plain characters, 10⁻³ and 2×10⁻³: formulas take a third of the time of a figure."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        formula = super().__call__(x, pos).removeprefix(r"$\mathdefault{").removesuffix("}$")
        axis: Any = self.axis
        low, high = sorted(axis.get_view_interval())
        if formula and vars(self)["_base"] == 10 and low >= 1e-3 and high < 1e4:
            return f"{x:g}"  # 6 says more than 6×10⁰
        text = _EXPONENT.sub(lambda found: found[1].translate(_RAISED), formula)
        return text.replace(r"\times", "×")


_EXPONENT = re.compile(r"\^\{(-?\d+)\}")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _write_plainly(axis: Any) -> None:
    """Replace matplotlib's formulas at the ticks of a logarithmic axis."""
    for ticks in (axis.major, axis.minor):
        if type(ticks.formatter) is LogFormatterSciNotation:
            ticks.formatter = _Powers(axis.get_transform().base)
            ticks.formatter.set_axis(axis)


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
    # Laid out at the resolution that is drawn: hinted text is up to a tenth wider at another one.
    figure = Figure(figsize=(width, height), layout=layout, dpi=_DPI)
    figure.patch.set_alpha(0)
    return figure


def moment(timestep: float) -> str:
    """Return a timestep as ticks name it: 833, not 833.333."""
    return f"{timestep:.0f}" if abs(timestep) >= 10 else f"{timestep:.3g}"


def axes(figure: Figure, *position: Any, theme: Theme, grid: Literal["", "x", "y"] = ""):
    """Add axes in the house style: two spines, quiet ticks, grid lines on one axis if asked ("x" or "y")."""
    text, quiet, line, _ = ink(theme)
    ax = figure.add_subplot(*(position or (1, 1, 1)))
    ax.set_facecolor("none")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(quiet)
    ax.tick_params(which="both", colors=quiet, labelcolor=text, labelsize=9)  # logarithmic axes label both
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
