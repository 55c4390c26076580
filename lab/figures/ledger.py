"""The quantization ledger: what each layer became, share of multiply-adds by bits, bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.errors import InputError
from lab.figures.plate import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    YELLOW,
    Plate,
    Provenance,
    Theme,
    axes,
    canvas,
    ink,
    shade,
)

_HATCHES = ("", "//", "..", "xx", "\\\\")


@dataclass(frozen=True)
class LayerRow:
    """One Linear or convolution of the ledger.

    Parameters
    ----------
    name, kind : str
        As in ``named_modules()``, and its class.
    bits : str
        Such as "W8A8", or "full precision".
    how : str
        "simulated", "native", or "" for a layer left alone.
    reason : str
        Why it was skipped.
    macs : float
        Multiply-adds a picture and step.
    bytes_before, bytes_after : float
    sqnr : float or None
        Signal to quantization noise of the weight in dB, where measured.
    path : str
        Kernel path that runs.
    """

    name: str
    kind: str = ""
    bits: str = "full precision"
    how: str = ""
    reason: str = ""
    macs: float = 0.0
    bytes_before: float = 0.0
    bytes_after: float = 0.0
    sqnr: float | None = None
    path: str = ""

    @property
    def stated_bits(self) -> str:
        """Bits together with whether they are simulated or native."""
        return f"{self.bits} ({self.how})" if self.how else self.bits


def layer_rows(ledger: Mapping[str, Any]) -> list[LayerRow]:
    """Read the layers of a ledger or a plan as its JSON file holds them (`quant.plans`)."""
    layers, formats = ledger.get("layers") or [], ledger.get("formats") or []
    return [_row(entry, formats) for entry in layers if isinstance(entry, Mapping)]


def share_of_macs(rows: Sequence[LayerRow]) -> list[tuple[str, float]]:
    """Return the share of multiply-adds at each stated bit-width (of layers where unknown), largest first."""
    total: dict[str, float] = {}
    known = any(r.macs for r in rows)
    for row in rows:
        total[row.stated_bits] = total.get(row.stated_bits, 0.0) + (row.macs if known else 1.0)
    whole = sum(total.values())
    return sorted(((b, v / whole) for b, v in total.items()), key=lambda pair: (-pair[1], pair[0]))


def mac_shares(rows: Sequence[LayerRow], provenance: Provenance, theme: Theme = "light") -> Plate:
    """Draw one bar: which share of the multiply-adds runs at which bits."""
    if not rows:
        raise InputError("the ledger holds no layer; nothing to draw")
    shares = share_of_macs(rows)
    text, _, _, ground = ink(theme)
    figure = canvas(10.4, 1.15, theme)
    ax = axes(figure, theme=theme)
    start = 0.0
    colours = (shade(BLUE, theme), ORANGE, GREEN, PURPLE, YELLOW)
    for k, (bits, share) in enumerate(shares):
        colour, hatch = colours[k % 5], _HATCHES[k % 5]
        ax.barh(
            0, share, left=start, color=colour, edgecolor=ground, hatch=hatch, label=f"{bits} {share:.1%}"
        )
        start += share
    ax.set(xlim=(0, 1), yticks=[], xticks=[0, 0.25, 0.5, 0.75, 1])
    ax.set_xticklabels(["0", "25", "50", "75", "100 %"])
    ax.spines["left"].set_visible(False)
    figure.legend(
        loc="outside upper left", ncols=min(4, len(shares)), frameon=False, fontsize=9, labelcolor=text
    )
    unit = "multiply-adds" if any(r.macs for r in rows) else "layers (multiply-adds are not recorded)"
    said = ", ".join(f"{bits} {share:.1%}" for bits, share in shares)
    return Plate(figure, f"Share of {unit} at each bit-width. {provenance.sentence()}", f"One bar: {said}.")


def layer_bytes(
    rows: Sequence[LayerRow], provenance: Provenance, theme: Theme = "light", most: int = 24
) -> Plate:
    """Draw bytes before and after for the `most` largest layers."""
    rows = sorted(rows, key=lambda r: -r.bytes_before)
    if not rows or not rows[0].bytes_before:
        raise InputError("the ledger records no bytes; nothing to draw")
    shown = rows[:most]
    figure = canvas(10.4, 0.22 * len(shown) + 1.0, theme)
    ax = axes(figure, theme=theme, grid="x")
    y = np.arange(len(shown))[::-1]
    ax.barh(y, [r.bytes_before / 1e3 for r in shown], height=0.75, color=ink(theme)[2], label="before")
    ax.barh(
        y,
        [r.bytes_after / 1e3 for r in shown],
        height=0.4,
        color=shade(BLUE, theme),
        label="after, with scales and side branches",
    )
    ax.set_yticks(y, [_shorten(r.name) for r in shown], fontsize=7.5)
    ax.set(xlabel="kilobytes", ylim=(-0.7, len(shown) - 0.3))
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9, labelcolor=ink(theme)[0])
    before, after = sum(r.bytes_before for r in rows), sum(r.bytes_after for r in rows)
    which = f"the {len(shown)} largest of {len(rows)} layers" if len(rows) > most else f"{len(rows)} layers"
    said = f"all layers together take {before / 1e6:.2f} MB before and {after / 1e6:.2f} MB after"
    caption = f"Bytes of the weights of {which}; {said}. {provenance.sentence()}"
    return Plate(figure, caption, f"Bar chart of {which}: {said}.")


def _row(entry: Mapping[str, Any], formats: Sequence[Any]) -> LayerRow:
    before, shape = float(entry.get("bytes_before") or 0), entry.get("shape") or ()
    weight, activation = (_bits(entry.get(side), formats) for side in ("weight", "activation"))
    path = str(entry.get("path") or "")
    quantized = weight is not None or activation is not None
    stored = before if quantized else float(entry.get("bytes_after") or before)  # a model may be cast later
    full = int(8 * stored / np.prod(shape)) if len(shape) and stored else 32
    return LayerRow(
        name=str(entry.get("name", "?")),
        kind=str(entry.get("kind", "")),
        bits=f"W{weight or full}A{activation or full}" if quantized else f"full precision, {full} bits",
        # Only a compiled kernel multiplies codes natively; plain torch computes the same numbers, simulated.
        how=("native" if "triton" in path and "simulated" not in path else "simulated") if quantized else "",
        reason=str(entry.get("reason") or ""),
        macs=float(entry.get("macs") or 0),
        bytes_before=before,
        bytes_after=float(entry.get("bytes_after") or 0),
        sqnr=entry.get("weight_sqnr_db"),
        path=path,
    )


def _bits(quantizer: Any, formats: Sequence[Any]) -> int | None:
    """Return the bits of a code of one quantizer, written out or as an index into the ledger's formats."""
    if isinstance(quantizer, int):
        quantizer = formats[quantizer] if 0 <= quantizer < len(formats) else None
    grid = quantizer.get("grid", {}) if isinstance(quantizer, Mapping) else {}
    if not grid:
        return None
    for key in ("bits", "bases", "n_bases"):
        if isinstance(grid.get(key), int):
            return int(grid[key])
    return 1 + sum(
        int(grid.get(key, 0)) for key in ("exponent", "exponent_bits", "mantissa", "mantissa_bits")
    )


def _shorten(name: str, most: int = 46) -> str:
    return name if len(name) <= most else "…" + name[1 - most :]
