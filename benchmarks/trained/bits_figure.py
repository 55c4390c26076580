"""Quality of decoded pictures over the bits of the decoder: every recipe, the best of each width named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lab.decoding.bits import FULL_PRECISION, OTHER_NOISE, RIDGE
from lab.figures.plate import BLUE, GREEN, ORANGE, VERMILION, Plate, Provenance, axes, canvas
from lab.jobs.brain.bits import Result

PANELS = (
    ("two_way_feature", "two-way, features"),
    ("two_way_pix", "two-way, pixels"),
    ("pixcorr", "PixCorr"),
    ("paired_psnr_to_fp", "PSNR to full precision, dB"),
)
KINDS = ((False, BLUE, "o", "calibrated after training"), (True, VERMILION, "s", "trained"))


def over_bits(
    result: Result, known: Mapping[int, Mapping[str, str]], chosen: Mapping[int, str], title: str
) -> Plate:
    """Draw three scores over nominal bits; the line joins the best recipes, bars are 95 % intervals.

    Parameters
    ----------
    result : Result
        Of ``brain bits``.
    known : mapping of width to mapping of short name to recipe
    chosen : mapping of width to short name
        Best recipe of each width.
    title : str
        Name of the run.
    """
    rows = {row["recipe"]: row for row in result.rows}
    widths = sorted(chosen, reverse=True)
    figure = canvas(10.5, 3.9 + 0.19 * len(widths), "light")
    panels = shown(result.rows)
    for place, (score, label) in enumerate(panels):
        ax = axes(figure, 1, len(panels), place + 1, theme="light", grid="y")
        for name, colour, line in (
            (FULL_PRECISION, GREEN, "-"),
            (RIDGE, ORANGE, "--"),
            (OTHER_NOISE, GREEN, ":"),
        ):
            value = rows.get(name, {}).get(score)
            relative = score == "paired_psnr_to_fp"
            if value is not None and relative == (name == OTHER_NOISE):
                ax.axhline(value, color=colour, linestyle=line, linewidth=1.4, label=name, zorder=1)
        best = [rows[known[width][chosen[width]]] for width in widths]
        ax.plot(range(len(widths)), [row[score] for row in best], color="#777777", linewidth=1, zorder=1)
        for trains, colour, marker, kind in KINDS:
            drawn = [
                (at, row)
                for at, width in enumerate(widths)
                for row in (rows[full] for full in known[width].values() if full in rows)
                if bool(row["train_steps"]) == trains and row[score] is not None
            ]
            _points(ax, drawn, score, colour, marker, kind)
        ax.set_xticks(range(len(widths)), [str(width) for width in widths])
        ax.set(xlabel="bits of a weight", ylabel=label)
        ax.margins(x=0.08)
    found: dict[str, Any] = {}
    for ax in figure.axes:
        found |= {text: handle for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(
        found.values(), found.keys(), loc="outside upper center", ncols=5, frameon=False, fontsize=8.5
    )
    named = [f"{width} bits: {chosen[width]}" for width in widths]
    figure.supxlabel("\n".join(named), fontsize=8, ha="left", x=0.06)
    source = Provenance(title, simulated=result.simulated_subject, leaks=result.leak_line)
    caption = (
        "Scores of decoded test pictures over the nominal bits of weights, simulated arithmetic; "
        "the grey line joins the recipes nearest to full precision, which are named below. Bars are 95 % "
        f"intervals over test pictures. {source.sentence()}"
    )
    said = "; ".join(
        f"{width} bits {row['two_way_feature'] or row['pixcorr']:.3f}"
        for width, row in zip(widths, best, strict=True)
    )
    return Plate(figure, caption, f"Three charts of scores over bits, best recipes {said}.")


def shown(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Choose scores: two-way by features, or where no network knows the pictures, by pixels."""
    known = [(score, label) for score, label in PANELS if any(row.get(score) is not None for row in rows)]
    return [panel for panel in known if panel[0] != "two_way_pix" or known[0] == panel]


def _points(
    ax: Any, drawn: Sequence[tuple[int, Mapping[str, Any]]], score: str, colour: str, marker: str, kind: str
) -> None:
    aside = 0.08 if marker == "s" else -0.08
    for at, row in drawn:
        low, high = row.get(f"{score}_low"), row.get(f"{score}_high")
        if low is not None and high is not None:
            ax.plot([at + aside] * 2, [low, high], color=colour, linewidth=0.9, alpha=0.6, zorder=2)
    ax.plot(
        [at + aside for at, _ in drawn], [row[score] for _, row in drawn], marker, color=colour, markersize=5,
        linestyle="none", label=kind, zorder=3,
    )  # fmt: skip
