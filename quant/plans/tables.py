"""Plans and ledgers as text and as HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quant.plans.plan import LayerPlan, Plan

HEADINGS = ("layer", "kind", "shape", "weight", "activation", "MACs", "bytes before", "bytes after", "note")


def to_html(plan: Plan, limit: int = 400) -> str:
    """Write a table with totals in the caption, for notebooks and reports."""
    extra = "weight SQNR dB" if _is_ledger(plan) else None
    head = "".join(f"<th>{escape(h)}</th>" for h in (*HEADINGS, *([extra] if extra else [])))
    body = []
    for layer in plan.layers[:limit]:
        cells = [*_cells(layer), *([_sqnr(layer)] if extra else [])]
        style = ' style="opacity:.6"' if layer.skipped else ""
        body.append(f"<tr{style}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    if len(plan.layers) > limit:
        body.append(f"<tr><td colspan=10>and {len(plan.layers) - limit} more layers</td></tr>")
    caption = escape(headline(plan))
    rows = "".join(body)
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def to_text(plan: Plan) -> str:
    """Aligned columns under the headline."""
    rows = [HEADINGS, *(_cells(layer) for layer in plan.layers)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return "\n".join([headline(plan), *lines])


def headline(plan: Plan) -> str:
    """One line: recipe, layers, bytes, mean bits, share of MACs."""
    share = ", ".join(f"{bits} {100 * part:.1f} %" for bits, part in plan.macs_share().items())
    measure = "MACs" if plan.mac_rule.startswith("counted") else "weights"
    return (
        f"{plan.recipe} on {plan.model}: {len(plan.quantized)} of {len(plan.layers)} layers, "
        f"{plan.bytes_before / 1e6:.2f} MB to {plan.bytes_after / 1e6:.2f} MB, "
        f"{plan.mean_weight_bits:.2f} bits a weight; {measure}: {share}"
        + (f"; {plan.training}" if plan.training else "")
    )


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


def _is_ledger(plan: Plan) -> bool:
    return hasattr(plan, "seconds_taken")


def _sqnr(layer: LayerPlan) -> str:
    value = getattr(layer, "weight_sqnr_db", None)
    return "" if value is None else f"{value:.1f}"
