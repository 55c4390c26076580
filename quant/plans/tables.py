"""Plans and ledgers as text and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from quant.plans.layer import LayerPlan

HEADINGS = ("layer", "kind", "shape", "weight", "activation", "MACs", "bytes before", "bytes after", "note")


def to_html(caption: str, layers: Sequence[LayerPlan], limit: int = 400, sqnr: bool = False) -> str:
    """Write a table with totals in the caption, for notebooks and reports.

    Parameters
    ----------
    caption : str
    layers : sequence of LayerPlan
    limit : int
        Rows shown; the rest is counted.
    sqnr : bool
        A column more, of ledgers: signal to quantization noise of the weights in dB.
    """
    extra = "weight SQNR dB" if sqnr else None
    head = "".join(f"<th>{escape(h)}</th>" for h in (*HEADINGS, *([extra] if extra else [])))
    body = []
    for layer in layers[:limit]:
        cells = [*_cells(layer), *([_sqnr(layer)] if extra else [])]
        style = ' style="opacity:.6"' if layer.skipped else ""
        body.append(f"<tr{style}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    if len(layers) > limit:
        body.append(f"<tr><td colspan=10>and {len(layers) - limit} more layers</td></tr>")
    rows = "".join(body)
    caption = escape(caption)
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def to_text(headline: str, layers: Sequence[LayerPlan]) -> str:
    """Aligned columns under the headline."""
    rows = [HEADINGS, *(_cells(layer) for layer in layers)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([headline, *lines])


def _cells(layer: LayerPlan) -> tuple[str, ...]:
    activation = (
        f"{layer.activation.label} {layer.activation.schedule.label}" if layer.activation else "float"
    )
    return (
        layer.name, layer.kind, "x".join(map(str, layer.shape)),
        layer.weight.label if layer.weight else "float", activation,
        "" if layer.macs is None else f"{layer.macs:,}", f"{layer.bytes_before:,}",
        f"{layer.bytes_after:,}", layer.reason or "",
    )  # fmt: skip


def _sqnr(layer: LayerPlan) -> str:
    value = getattr(layer, "weight_sqnr_db", None)
    return "" if value is None else f"{value:.1f}"
