"""What a new subject's pictures are like after minutes of scanning, by every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.errors import InputError
from lab.figures.plate import Plate, Provenance, Theme, axes, canvas, legend, shade
from lab.figures.tradeoff import BELOW, ROW, STYLES

SCORES = (("two_way", "feature two-way"), ("pixcorr", "PixCorr"))


@dataclass(frozen=True)
class Mark:
    """One method's score: ``[mean, low, high]``; ``minutes`` of scanning for a newcomer's."""

    label: str
    two_way: tuple[float, float, float]
    pixcorr: tuple[float, float, float]
    minutes: float | None = None


def newcomer_curve(marks: Sequence[Mark], provenance: Provenance, theme: Theme = "light") -> Plate:
    """Draw feature two-way and PixCorr over minutes of scanning, one line for each label.

    Parameters
    ----------
    marks : sequence of Mark
        All with ``minutes``.
    """
    if not marks or any(m.minutes is None for m in marks):
        raise InputError("a newcomer's curve wants scores at minutes of scanning")
    names = list(dict.fromkeys(m.label for m in marks))
    figure = canvas(9.5, 3.4 + ROW * len(names), theme)
    for column, score in enumerate(SCORES):
        draw_curves(axes(figure, 1, 2, column + 1, theme=theme, grid="y"), marks, names, score, theme)
    caption = (
        "A new subject's test pictures after so many minutes of scanning, one sample a picture through one "
        f"decoder. Bars are 95 % intervals over test pictures. {provenance.sentence()}"
    )
    said = "; ".join(f"{m.label} at {m.minutes:g} min: {m.two_way[0]:.3f}" for m in marks)
    return Plate(figure, caption, f"Feature two-way over minutes of scanning. {said}.")


def draw_curves(
    ax: Any, marks: Sequence[Mark], names: Sequence[str], score: tuple[str, str], theme: Theme
) -> None:
    """Draw one score of ``SCORES`` over minutes; the legend stands below that of two-way."""
    key, said = score
    for k, (name, (colour, marker, line)) in enumerate(zip(names, STYLES, strict=False)):
        mine = sorted((m for m in marks if m.label == name), key=lambda m: m.minutes or 0)
        # beside each other, so that no interval hides another
        beside = 1.03 ** (k - (len(names) - 1) / 2)
        tone, x = shade(colour, theme), [(m.minutes or 0) * beside for m in mine]
        values = [getattr(m, key) for m in mine]
        ax.plot(x, [v[0] for v in values], marker, color=tone, linestyle=line, label=name)
        for at, value in zip(x, values, strict=True):
            ax.plot([at] * 2, value[1:], color=tone, linewidth=1)
    ticks = sorted({m.minutes for m in marks if m.minutes is not None})
    ax.set(xscale="log", xlabel="minutes of scanning", ylabel=said)
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    if key == "two_way":
        # in multiples of the font's size below the axis: tick and axis labels, however high the axes are
        legend(ax, theme, **(BELOW | {"bbox_to_anchor": (0, 0), "borderaxespad": 4.6}))
