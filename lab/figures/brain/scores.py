"""Scores beside their baselines, as rows and as a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.errors import InputError
from lab.figures.plate import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILION,
    Plate,
    Provenance,
    Theme,
    axes,
    canvas,
    ink,
    shade,
)

#: Sets of reconstructions: prefix in metrics.json, label, colour, marker.
ARMS = (
    ("", "quantized", BLUE, "o"),
    ("fp.", "full precision", GREEN, "D"),
    ("ridge.", "ridge", ORANGE, "s"),
    ("ridge_tokens.", "ridge to tokens", VERMILION, "P"),
    ("mean_image.", "mean image", PURPLE, "^"),
)
#: Label, whether larger is better, digits.
KNOWN = {
    "pixcorr": ("PixCorr", True, 3),
    "ssim": ("SSIM (by channel)", True, 3),
    "ssim_gauss": ("SSIM (grey, Gaussian)", True, 3),
    "mse": ("MSE", False, 4),
    "two_way_pix": ("two-way, pixels", True, 3),
    "two_way_feature": ("two-way, features", True, 3),
    "top1_feature": ("top-1 of all, features", True, 3),
    "st_lpips": ("ST-LPIPS", False, 3),
    "brain_correlation": ("brain correlation", True, 3),
}
_FIXED_CHANCE = {"two_way": 0.5}


@dataclass(frozen=True)
class Cell:
    """One score with its bounds, of a difference with the paired test's p; all None where there is none."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class MetricRow:
    """One metric over all arms.

    Parameters
    ----------
    key, label : str
        Name in metrics.json, and the field's name of it.
    larger_is_better : bool
    digits : int
        Decimals to print.
    cells : mapping of str to Cell
        By arm label: quantized, full precision, ridge, ridge to tokens, mean image.
    chance : float or None
    against_ridge : Cell
        Quantized minus ridge to pixels, picture by picture.
    against_ridge_tokens : Cell
        Quantized minus ridge to tokens through the same decoder, picture by picture.
    main : str
        What "quantized" is to be called: "full precision" where nothing was; the arm of that name is empty.
    """

    key: str
    label: str
    larger_is_better: bool
    digits: int
    cells: Mapping[str, Cell]
    chance: float | None
    against_ridge: Cell
    against_ridge_tokens: Cell
    main: str = "quantized"

    def label_of(self, arm: str) -> str:
        """Return what an arm is to be called."""
        return self.main if arm == ARMS[0][1] else arm


def metric_rows(metrics: Mapping[str, Any]) -> list[MetricRow]:
    """Collect the scores of a flat ``metrics.json`` into rows, known ones first.

    A name counts as a score if it is a known one or has a sibling ``<name>.low`` or ``ridge.<name>``.
    """
    names = [n for n in KNOWN if _number(metrics, n) is not None]
    for name in metrics:
        rival = f"{name}.low" in metrics or f"ridge.{name}" in metrics
        if rival and "." not in name and name not in names and _number(metrics, name) is not None:
            names.append(name)
    rows, plain = [], metrics.get("recipe") == "none"
    for name in names:
        label, up, digits = KNOWN.get(
            name, (name.replace("_", " ").replace("two way ", "two-way, "), True, 3)
        )
        cells = {arm: _cell(metrics, prefix + name) for prefix, arm, _, _ in ARMS}
        if plain:  # it would stand twice
            cells["full precision"] = Cell()
        fixed = next((v for k, v in _FIXED_CHANCE.items() if name.startswith(k)), None)
        chance = _number(metrics, f"chance.{name}")
        rows.append(
            MetricRow(
                name,
                label,
                up,
                digits,
                cells,
                fixed if chance is None else chance,
                _cell(metrics, f"minus_ridge.{name}"),
                _cell(metrics, f"minus_ridge_tokens.{name}"),
                "full precision" if plain else "quantized",
            )
        )
    return rows


def score_chart(rows: Sequence[MetricRow], provenance: Provenance, theme: Theme = "light") -> Plate:
    """Draw every metric with the 95 % interval of each arm and a dashed line at chance."""
    if not rows:
        raise InputError("no scores to draw; metrics.json holds none of the known names")
    text, quiet, _, _ = ink(theme)
    figure = canvas(10.4, 2.6, theme)
    for k, row in enumerate(rows):
        ax = axes(figure, 1, len(rows), k + 1, theme=theme, grid="y")
        for x, (_, arm, plain, marker) in enumerate(ARMS):
            cell, colour = row.cells[arm], shade(plain, theme)
            if cell.value is None:
                continue
            if cell.low is not None and cell.high is not None:
                ax.plot([x, x], [cell.low, cell.high], color=colour, linewidth=2, solid_capstyle="round")
            ax.plot(
                x, cell.value, marker, color=colour, markersize=6.5, label=row.label_of(arm), linestyle="none"
            )
        if row.chance is not None:
            ax.axhline(row.chance, color=quiet, linestyle="--", linewidth=1, label="chance")
        arrow = "↑" if row.larger_is_better else "↓"
        ax.set_title(f"{row.label} {arrow}", fontsize=10, color=text)
        ax.set(xlim=(-0.6, len(ARMS) - 0.4), xticks=[])
        ax.margins(y=0.15)
        ax.locator_params(axis="y", nbins=4)
    handles: dict[str, Any] = {}
    for ax in figure.axes:
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=9,
        labelcolor=text,
    )
    caption = (
        "Mean over test pictures with 95 % bootstrap interval; the arrow says which direction is better, the "
        f"dashed line is chance. {provenance.sentence()}"
    )
    return Plate(figure, caption, "; ".join(_words(row) for row in rows) + ".")


def _words(row: MetricRow) -> str:
    said = [
        f"{row.label_of(arm)} {c.value:.{row.digits}f}" for arm, c in row.cells.items() if c.value is not None
    ]
    chance = [] if row.chance is None else [f"chance {row.chance:.{row.digits}f}"]
    return f"{row.label}: {', '.join(said + chance)}"


def _number(metrics: Mapping[str, Any], key: str) -> float | None:
    value = metrics.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _cell(metrics: Mapping[str, Any], key: str) -> Cell:
    return Cell(*(_number(metrics, key + end) for end in ("", ".low", ".high", ".p")))
