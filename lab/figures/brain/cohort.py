"""What a study of the shared network found: every method with its interval, and a newcomer over minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.errors import InputError
from lab.figures.plate import Plate, Provenance, Theme, axes, canvas, ink, legend, shade
from lab.figures.tradeoff import BELOW, ROW, STYLES


@dataclass(frozen=True)
class Mark:
    """One method's score: ``[mean, low, high]``; ``minutes`` of scanning for a newcomer's."""

    label: str
    two_way: tuple[float, float, float]
    pixcorr: tuple[float, float, float]
    minutes: float | None = None


def cohort_study(marks: Sequence[Mark], provenance: Provenance, theme: Theme = "light") -> Plate:
    """Draw methods below each other on the left, a newcomer's curves over minutes on the right.

    Parameters
    ----------
    marks : sequence of Mark
        Those with ``minutes`` make up the curves, one a label.
    """
    fixed = [m for m in marks if m.minutes is None]
    moving = [m for m in marks if m.minutes is not None]
    if not fixed or not moving:
        raise InputError("the study's figure wants methods on the cohort and on the newcomer")
    names = list(dict.fromkeys(m.label for m in moving))
    _, quiet, _, _ = ink(theme)
    figure = canvas(12.5, max(4.6, 1.4 + 0.3 * len(fixed)) + ROW * len(names), theme)
    left = axes(figure, 1, 2, 1, theme=theme, grid="x")
    for place, mark in enumerate(reversed(fixed)):
        for score, (colour, marker, _) in ((mark.two_way, STYLES[0]), (mark.pixcorr, STYLES[3])):
            tone = shade(colour, theme)
            left.plot(score[1:], [place] * 2, color=tone, linewidth=1.4)
            left.plot(score[0], place, marker, color=tone, markersize=6)
    left.set_yticks(range(len(fixed)), [m.label for m in reversed(fixed)])
    left.set(xlabel="feature two-way (circles) and PixCorr (diamonds)")
    right = axes(figure, 1, 2, 2, theme=theme, grid="y")
    for name, (colour, marker, line) in zip(names, STYLES, strict=False):
        mine = sorted((m for m in moving if m.label == name), key=lambda m: m.minutes or 0)
        tone, x = shade(colour, theme), [m.minutes for m in mine]
        right.plot(x, [m.two_way[0] for m in mine], marker, color=tone, linestyle=line, label=name)
        for m in mine:
            right.plot([m.minutes] * 2, m.two_way[1:], color=tone, linewidth=1)
    right.set(xscale="log", xlabel="minutes of scanning, newcomer", ylabel="feature two-way")
    ticks = sorted({m.minutes for m in moving if m.minutes is not None})
    right.set_xticks(ticks, [f"{t:g}" for t in ticks])
    right.minorticks_off()
    right.axhline(0.5, color=quiet, linewidth=0.8)
    legend(right, theme, **BELOW)
    caption = (
        "Left: methods on the cohort's subjects through one decoder, one sample a picture; right: a subject "
        "that nothing was trained on, over minutes of scanning. Bars are 95 % intervals over test pictures. "
        f"{provenance.sentence()}"
    )
    said = "; ".join(
        f"{m.label}{'' if m.minutes is None else f' at {m.minutes:g} min'}: {m.two_way[0]:.3f}" for m in marks
    )
    return Plate(figure, caption, f"Feature two-way of methods. {said}.")
